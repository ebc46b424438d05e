"""`pipe system df` and `pipe system prune`: what takes how much of the disk, and removing what nobody needs (FEATURES D-37)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session

if TYPE_CHECKING:
    from pipeline.services import Services


@click.group()
def system() -> None:
    """Disk usage and clean-up."""


@system.command()
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="table or json."
)
@click.pass_obj
def df(session: Session, form: str) -> None:
    """Show how much of the disk the store uses."""
    from pipeline.ui.text import size, table
    from runtime.store.usage import usage

    with session.work(containers=False, progress="none") as services:
        running = [container.id for container in services.containers.list()]
        mounted = [volume.name for volume in services.volumes.list() if services.volumes.users(volume.name)]
        found = usage(services.store, running=running, mounted=mounted)
    if form == "json":
        for each in found:
            record = {"Type": each.kind, "TotalCount": each.count, "Active": each.active}
            click.echo(json.dumps(record | {"Size": each.size, "Reclaimable": each.reclaimable}))
        return
    rows = [
        [each.kind, str(each.count), str(each.active), size(each.size), _share(each.reclaimable, each.size)]
        for each in found
    ]
    click.echo(table(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], rows))


def _share(part: int, whole: int) -> str:
    from pipeline.ui.text import size

    return f"{size(part)} ({100 * part // whole}%)" if part and whole else size(part)


@system.command()
@click.option(
    "-a",
    "--all",
    "everything",
    is_flag=True,
    help="All images without a container and the whole build cache.",
)
@click.option("--volumes", is_flag=True, help="Unused anonymous volumes too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(session: Session, everything: bool, volumes: bool, force: bool) -> None:
    """Remove what nobody needs: stopped containers, unused networks, images, build cache, what interrupted commands left."""
    if not force:
        click.echo("This removes:")
        for line in _what(everything, volumes):
            click.echo(f"  - {line}")
        click.confirm("Go on?", abort=True)
    with session.work(containers=False, progress="none", makes_room=True) as services:
        freed = _prune(services, everything, volumes)
    click.echo(f"Total reclaimed space: {_size(freed)}")


def _what(everything: bool, volumes: bool) -> list[str]:
    return [
        "all containers that do not run",
        "all networks without a container",
        *(["all anonymous volumes without a container"] if volumes else []),
        "all images without a container" if everything else "all images without a name",
        "the whole build cache" if everything else "the build cache no image shares",
    ]


def _prune(services: Services, everything: bool, volumes: bool) -> int:
    from builder.prune import Policy
    from builder.prune import prune as prune_cache
    from pipeline.cli.images import show_removed
    from runtime.images.prune import Wanted

    removed, freed = services.containers.prune()
    _show("Deleted containers:", removed)
    _show("Deleted networks:", services.networks.prune())
    if volumes:
        gone, bytes_freed = services.volumes.prune()
        _show("Deleted volumes:", gone)
        freed += bytes_freed
    show_removed(services.images.prune(Wanted(everything=everything)))
    services.store.leases.release()
    return freed + prune_cache(services.store, Policy(everything=everything)).freed


def _show(title: str, names: tuple[str, ...]) -> None:
    if names:
        click.echo("\n".join((title, *names)))


def _size(count: int) -> str:
    from pipeline.ui.text import size

    return size(count)
