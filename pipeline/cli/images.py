"""`pipe pull`, `push`, `tag`, `rmi`, and the group `image`.

The commands and what they print are docker's. All the work is in `runtime.images` and `runtime.store`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.archives import import_, load, save
from pipeline.cli.image_list import history, images
from pipeline.cli.session import Session
from runtime.errors import InvalidInput, PipeError

if TYPE_CHECKING:
    from runtime.images.image import Removed


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="FORMAT", help="json, or text with {{.Field}}.")
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...], form: str) -> int:
    """Show everything about images, as JSON."""
    from pipeline.cli.container_text import show_inspected

    with session.work(containers=False, progress="none") as services:
        return show_inspected(services, names, form, size=False, kind="image")


# --- registries -----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--platform", metavar="OS/ARCH", help="The platform wanted, as linux/arm64.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_obj
def pull(session: Session, names: tuple[str, ...], platform: str | None, quiet: bool) -> None:
    """Pull images from a registry."""
    with session.work(containers=False, progress="none" if quiet else None) as services:
        pulled = [services.images.pull(name, platform, cancel=session.cancel) for name in names]
    for image in pulled:
        click.echo(image.id)


@click.command()
@click.argument("name")
@click.argument("target", required=False)
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "uncompressed"]),
    default="gzip",
    help="Of layers made here.",
)
@click.option("--platform", metavar="OS/ARCH", help="Only the image for this platform.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_obj
def push(
    session: Session, name: str, target: str | None, compression: str, platform: str | None, quiet: bool
) -> None:
    """Push an image, or all a name has for several platforms, under its own name or as TARGET."""
    kind = "" if compression == "uncompressed" else compression
    with session.work(containers=False, progress="none" if quiet else None) as services:
        pushed = services.images.push(
            name, target or "", compression=kind, platform=platform, cancel=session.cancel
        )
    click.echo(pushed.digest)


# --- names ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(session: Session, source: str, target: str) -> None:
    """Give the image SOURCE the further name TARGET."""
    with session.work(containers=False, progress="none") as services:
        services.images.tag(source, target)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also take names away that are in use.")
@click.pass_obj
def rmi(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Remove images: the name, and with the last one the image."""
    failed: list[PipeError] = []
    with session.work(containers=False, progress="none") as services:
        for name in names:
            try:
                show_removed(services.images.remove(name, force))
            except PipeError as error:
                failed.append(error)
        services.store.leases.release()
        services.store.collect()
    _raise_first(failed)


def show_removed(removed: tuple[Removed, ...]) -> None:
    from runtime.images.image import Untagged

    for each in removed:
        click.echo(f"Untagged: {each.reference}" if isinstance(each, Untagged) else f"Deleted: {each.digest}")


def _raise_first(failed: list[PipeError]) -> None:
    from pipeline.ui.errors import show_error

    for error in failed[1:]:
        show_error(error)
    if failed:
        raise failed[0]


@click.command()
@click.option(
    "-a",
    "--all",
    "everything",
    is_flag=True,
    help="All images that no container uses, not only nameless ones.",
)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="until=24h, label=NAME[=VALUE], label!=…"
)
@click.pass_obj
def prune(session: Session, everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove images nobody needs."""
    from pipeline.ui.text import size

    kind = "all images without a container" if everything else "all images without a name"
    if not force:
        click.confirm(f"This removes {kind}. Go on?", abort=True)
    with session.work(containers=False, progress="none", makes_room=True) as services:
        show_removed(services.images.prune(wanted_by(everything, filters)))
        services.store.leases.release()
        freed = services.store.collect().freed
    click.echo(f"Total reclaimed space: {size(freed)}")


def wanted_by(everything: bool, filters: tuple[str, ...]) -> Any:
    from runtime.images.prune import Wanted

    until, labels, not_labels = 0.0, [], []
    for each in filters:
        key, equals, value = each.partition("=")
        if key == "until" and equals:
            until = time.time() - _seconds(value)
        elif key == "label" and equals:
            labels.append(value)
        elif key == "label!" and equals:
            not_labels.append(value)
        elif key == "dangling" and equals:
            everything = everything or value in ("false", "0")
        else:
            raise InvalidInput(f"unknown filter {each!r}", hint="use until=…, label=… or label!=…")
    return Wanted(everything=everything, until=until, labels=tuple(labels), not_labels=tuple(not_labels))


def _seconds(text: str) -> float:
    """`90s`, `10m`, `24h`, `1h30m`."""
    import re

    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise InvalidInput(f"invalid duration {text!r}", hint="for example 24h or 1h30m")
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))


# --- groups ---------------------------------------------------------------------------------------------------------


@click.group()
def image() -> None:
    """Manage images."""


for _name, _command in (
    ("ls", images), ("list", images), ("pull", pull), ("push", push), ("tag", tag), ("rm", rmi), ("save", save),
    ("load", load), ("import", import_), ("history", history), ("inspect", inspect), ("prune", prune),
):  # fmt: skip
    image.add_command(_command, _name)
