"""`pipe volume create|ls|inspect|rm|prune`, as docker's."""

from __future__ import annotations

import json

import click

from pipeline.cli.run_values import pairs
from pipeline.cli.session import Session
from runtime.errors import InvalidInput, PipeError


@click.group()
def volume() -> None:
    """Manage volumes."""


@volume.command()
@click.argument("name", required=False, default="")
@click.option("-d", "--driver", default="local", help="Only local.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label.")
@click.option("-o", "--opt", "options", multiple=True, metavar="NAME=VALUE", help="type, device, o.")
@click.pass_obj
def create(
    session: Session, name: str, driver: str, labels: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Create a volume."""
    if driver != "local":
        raise InvalidInput(f"unknown volume driver {driver!r}", hint="local")
    with session.work(containers=False, progress="none") as services:
        made = services.volumes.create(name, labels=pairs("label", labels), options=pairs("opt", options))
    click.echo(made.name)


@volume.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="name, label, dangling.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="table or json."
)
@click.pass_obj
def list_(session: Session, quiet: bool, filters: tuple[str, ...], form: str) -> None:
    """List volumes."""
    wanted = pairs("filter", filters)
    with session.work(containers=False, progress="none") as services:
        found = [
            one
            for one in services.volumes.list()
            if wanted.get("name", "") in one.name
            and _labelled(dict(one.labels), wanted.get("label", ""))
            and (
                "dangling" not in wanted
                or (wanted["dangling"] == "true") == (not services.volumes.users(one.name))
            )
        ]
    if form == "json":
        for one in found:
            click.echo(json.dumps({"Name": one.name, "Driver": "local", "Mountpoint": one.path}))
        return
    if not quiet:
        click.echo("DRIVER    VOLUME NAME")
    for one in found:
        click.echo(one.name if quiet else f"local     {one.name}")


def _labelled(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return not key or (key in labels and (not equals or labels[key] == value))


@volume.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show volumes."""
    from runtime.containers.inspect import volume_record

    with session.work(containers=False, progress="none") as services:
        records = [volume_record(services.volumes.get(name)) for name in names]
    click.echo(json.dumps(records, indent=4))


@volume.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="A missing one is no error.")
@click.pass_obj
def rm(session: Session, names: tuple[str, ...], force: bool) -> int:
    """Remove volumes."""
    from pipeline.ui.errors import show_error

    failed = 0
    with session.work(containers=False, progress="none") as services:
        services.containers.sweep()
        for name in names:
            try:
                services.volumes.remove(name, force=force)
                click.echo(name)
            except PipeError as error:
                show_error(error)
                failed = 1
    return failed


@volume.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Named ones too.")
@click.option("-f", "--force", is_flag=True, help="Accepted for docker's sake: nothing is asked.")
@click.option("--filter", "filters", multiple=True, metavar="label=NAME=VALUE", help="Only some.")
@click.pass_obj
def prune(session: Session, everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove volumes that no container uses; named ones only with --all."""
    from pipeline.cli.container_text import size_text

    labels: dict[str, str] = {}
    for text in filters:
        kind, _, rest = text.partition("=")
        if kind != "label":
            raise InvalidInput(f"unknown filter {kind!r}", hint="label")
        labels |= pairs("filter label", [rest])
    with session.work(containers=False, progress="none") as services:
        removed, freed = services.volumes.prune(everything=everything, labels=labels)
    for name in removed:
        click.echo(name)
    click.echo(f"Total reclaimed space: {size_text(freed)}")
