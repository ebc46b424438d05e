"""`pipe images`, `pull`, `push`, `tag`, `rmi`, `history`, and the group `image`.

The commands and what they print are docker's. All the work is in `runtime.images` and `runtime.store`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.archives import import_, load, save
from pipeline.cli.session import Session
from runtime.errors import InvalidInput, PipeError

if TYPE_CHECKING:
    from runtime.images.image import Image, Removed

_NONE = "<none>"


# --- listing --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("repository", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Also images without a name.")
@click.option("-q", "--quiet", is_flag=True, help="Only image ids.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten ids.")
@click.option("--digests", is_flag=True, help="Show digests.")
@click.option(
    "--format",
    "form",
    metavar="json",
    type=click.Choice(["table", "json"]),
    default="table",
    help="table or json.",
)
@click.pass_obj
def images(
    session: Session,
    repository: str | None,
    everything: bool,
    quiet: bool,
    no_trunc: bool,
    digests: bool,
    form: str,
) -> None:
    """List images."""
    with session.work(containers=False, progress="none") as services:
        rows = _rows(services.images.list(), repository, everything)
    if quiet:
        ids = dict.fromkeys(image.id if no_trunc else image.short_id for image, _, _ in rows)
        click.echo("\n".join(ids), nl=bool(ids))
    elif form == "json":
        for row in rows:
            click.echo(json.dumps(_record(*row, no_trunc)))
    else:
        _print_table(rows, no_trunc, digests)


def _rows(found: tuple[Image, ...], repository: str | None, everything: bool) -> list[tuple[Image, str, str]]:
    """One row per name: image, repository, tag."""
    rows = []
    for image in found:
        names = [_split(tag) for tag in image.tags]
        if not names and (everything or not repository):
            names = [(_NONE, _NONE)]
        rows += [(image, *name) for name in names if not repository or _matches(name, repository)]
    return rows


def _split(tag: str) -> tuple[str, str]:
    from registry_client.reference import parse_reference

    reference = parse_reference(tag)
    return reference.familiar_name, reference.tag


def _matches(name: tuple[str, str], wanted: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(name[0], wanted) or fnmatchcase(":".join(name), wanted)


def _print_table(rows: list[tuple[Image, str, str]], no_trunc: bool, digests: bool) -> None:
    from pipeline.ui.text import size, table

    header = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]
    lines = [
        [
            name, tag, *([_digest_in(image, name)] if digests else []), image.id if no_trunc else image.short_id,
            _age(image.created), size(image.size),
        ]
        for image, name, tag in rows
    ]  # fmt: skip
    click.echo(table(header, lines))


def _digest_in(image: Image, name: str) -> str:
    from registry_client.reference import parse_reference

    found = (parse_reference(each) for each in image.repo_digests)
    return next((each.digest or _NONE for each in found if each.familiar_name == name), _NONE)


def _record(image: Image, name: str, tag: str, no_trunc: bool) -> dict[str, Any]:
    from pipeline.ui.text import size

    return {
        "ID": image.id if no_trunc else image.short_id, "Repository": name, "Tag": tag, "Digest": _digest_in(image, name),
        "CreatedAt": image.created, "CreatedSince": _age(image.created), "Size": size(image.size),
    }  # fmt: skip


def _age(created: str) -> str:
    from datetime import datetime

    from pipeline.ui.text import age

    try:
        return age(time.time() - datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()) + " ago"
    except ValueError:
        return "N/A"


@click.command()
@click.argument("name")
@click.option("--no-trunc", is_flag=True, help="Do not shorten what was run.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.pass_obj
def history(session: Session, name: str, no_trunc: bool, quiet: bool) -> None:
    """Show how an image was made."""
    from pipeline.ui.text import table

    with session.work(containers=False, progress="none") as services:
        image = services.images.get(name)
        steps = services.images.history(image)
    if quiet:
        click.echo("\n".join(image.short_id if n == 0 else "<missing>" for n in range(len(steps))))
        return
    rows = []
    for number, step in enumerate(steps):
        text = step.created_by if no_trunc or len(step.created_by) <= 45 else step.created_by[:44] + "…"
        shown = image.id if no_trunc else image.short_id
        rows.append(
            [shown if number == 0 else "<missing>", _age(step.created), text, _size(step.size), step.comment]
        )
    click.echo(table(["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], rows))


def _size(count: int) -> str:
    from pipeline.ui.text import size

    return size(count)


@click.command("inspect")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show everything about images, as JSON."""
    from runtime.images.inspect import inspect as describe

    with session.work(containers=False, progress="none") as services:
        found = [describe(services.images, services.images.get(name)) for name in names]
    click.echo(json.dumps(found, indent=4, ensure_ascii=False))


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
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_obj
def push(session: Session, name: str, target: str | None, compression: str, quiet: bool) -> None:
    """Push an image to a registry, under its own name or as TARGET."""
    kind = "" if compression == "uncompressed" else compression
    with session.work(containers=False, progress="none" if quiet else None) as services:
        pushed = services.images.push(name, target or "", compression=kind, cancel=session.cancel)
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
    kind = "all images without a container" if everything else "all images without a name"
    if not force:
        click.confirm(f"This removes {kind}. Go on?", abort=True)
    with session.work(containers=False, progress="none") as services:
        show_removed(services.images.prune(wanted_by(everything, filters)))
        services.store.leases.release()
        freed = services.store.collect().freed
    click.echo(f"Total reclaimed space: {_size(freed)}")


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
