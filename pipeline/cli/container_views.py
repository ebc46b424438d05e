"""`pipe ps`, `inspect`, `top`, `stats`, `port`, `diff`: what containers are and do. Nothing is changed."""

from __future__ import annotations

import click

from pipeline.cli.session import Session
from runtime.errors import NotFound


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only some.")
@click.option(
    "--format", "form", default="table", metavar="FORMAT", help="table, json, or text with {{.Field}}."
)
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="The last N, in whatever state.")
@click.option("-l", "--latest", is_flag=True, help="The last one.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("-s", "--size", is_flag=True, help="Show sizes.")
@click.pass_obj
def ps(
    session: Session,
    everything: bool,
    filters: tuple[str, ...],
    form: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers."""
    from pipeline.cli.container_text import parse_filter, show_table

    last = 1 if latest else last
    with session.work(containers=False, progress="none") as services:
        services.containers.sweep()
        wanted = [parse_filter(text) for text in filters]
        found = services.containers.list(everything=everything or last >= 0, filters=wanted)
        found = found if last < 0 else found[:last]
        if quiet:
            for container in found:
                click.echo(container.id if no_trunc else container.short_id)
        else:
            show_table(services, found, form, no_trunc=no_trunc, size=size)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--format", "form", default="", metavar="FORMAT", help="json, or text with {{.Field}}.")
@click.option("-s", "--size", is_flag=True, help="Count sizes.")
@click.option("--type", "kind", default="", metavar="TYPE", help="container, image, volume or network.")
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...], form: str, size: bool, kind: str) -> int:
    """Show everything about a container or image."""
    from pipeline.cli.container_text import show_inspected

    with session.work(containers=False, progress="none") as services:
        services.containers.sweep()
        return show_inspected(services, names, form, size=size, kind=kind)


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.argument("options", nargs=-1, metavar="[ps OPTIONS]")
@click.pass_obj
def top(session: Session, name: str, options: tuple[str, ...]) -> None:
    """Show the processes of a container."""
    from pipeline.cli.container_text import table

    with session.work(containers=False, progress="none") as services:
        rows = services.containers.top(name)
    if rows:
        click.echo(table([list(rows[0]), *(list(row.values()) for row in rows)]))


@click.command()
@click.argument("names", nargs=-1, metavar="[CONTAINER...]")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("--no-stream", is_flag=True, help="Once, and not again every second.")
@click.option("--format", "form", default="table", metavar="FORMAT", help="table or json.")
@click.pass_obj
def stats(session: Session, names: tuple[str, ...], everything: bool, no_stream: bool, form: str) -> None:
    """Show what containers use."""
    from pipeline.cli.container_text import show_stats

    with session.work(containers=False, progress="none") as services:
        while True:
            show_stats(services, names, form)
            if no_stream or session.cancel.wait(1.0):
                return


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.argument("private", required=False, metavar="[PORT[/PROTO]]")
@click.pass_obj
def port(session: Session, name: str, private: str | None) -> None:
    """Show the published ports of a container."""
    with session.work(containers=False, progress="none") as services:
        container = services.containers.get(name)
        bindings = services.networks.published(container.id)
    number, _, protocol = (private or "").partition("/")
    found = [
        binding
        for binding in bindings
        if not private or (str(binding.container_port) == number and binding.protocol == (protocol or "tcp"))
    ]
    if private and not found:
        raise NotFound(f"port {private} of container {container.name} is not published")
    for binding in found:
        left = "" if private else f"{binding.container_port}/{binding.protocol} -> "
        click.echo(f"{left}{binding.host_ip}:{binding.host_port}")


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.pass_obj
def diff(session: Session, name: str) -> None:
    """Show what differs from the image."""
    with session.work(containers=False, progress="none") as services:
        for kind, path in services.containers.changes(name):
            click.echo(f"{kind} {path}")
