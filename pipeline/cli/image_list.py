"""`pipe images` and `pipe history`: what there is and how it was made, printed as docker does."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from runtime.images import Images
    from runtime.images.image import Image
    from runtime.images.selection import Selection

_NONE = "<none>"
_HEADINGS = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
}  # fmt: skip
_MORE_HEADINGS = {"CreatedAt": "CREATED AT", "Containers": "CONTAINERS"}
Row = tuple["Image", str, str]  # image, repository, tag


@click.command()
@click.argument("repository", required=False)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Accepted for docker's sake: nothing is left out."
)
@click.option("-q", "--quiet", is_flag=True, help="Only image ids.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten ids.")
@click.option("--digests", is_flag=True, help="Show digests.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="dangling, label, reference, before, since.",
)
@click.option(
    "--format", "form", metavar="FORMAT", default="table", help="table, json, or text with {{.Field}}."
)
@click.pass_obj
def images(
    session: Session, repository: str | None, everything: bool, quiet: bool, no_trunc: bool, digests: bool,
    filters: tuple[str, ...], form: str,
) -> None:  # fmt: skip
    """List images."""
    with session.work(containers=False, progress="none") as services:
        selection = _selection(services.images, filters)
        rows = _rows(services.images.list(), selection, repository)
    if quiet:
        ids = dict.fromkeys(image.id if no_trunc else image.short_id for image, _, _ in rows)
        click.echo("\n".join(ids), nl=bool(ids))
        return
    _show([_record(*row, no_trunc) for row in rows], form, digests)


def _rows(found: Sequence[Image], selection: Selection, repository: str | None) -> list[Row]:
    """One row per name; one for an image without any."""
    rows: list[Row] = []
    for image in found:
        if (listed := selection.names(image)) is None:
            continue
        names = [_split(tag) for tag in listed] or ([] if repository else [_nameless(image)])
        rows += [(image, *name) for name in names if not repository or _matches(name, repository)]
    return rows


def _split(tag: str) -> tuple[str, str]:
    from registry_client.reference import parse_reference

    reference = parse_reference(tag)
    return reference.familiar_name, reference.tag


def _nameless(image: Image) -> tuple[str, str]:
    """An image that was pulled by digest still tells where from."""
    return (_split(image.repo_digests[0])[0], _NONE) if image.repo_digests else (_NONE, _NONE)


def _matches(name: tuple[str, str], wanted: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(name[0], wanted) or fnmatchcase(":".join(name), wanted)


def _selection(images: Images, texts: Sequence[str]) -> Selection:
    """What `--filter KEY=VALUE` asks for."""
    from runtime.images.selection import FILTERS, Selection

    filters: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in FILTERS or key == "until" or not equals:
            raise InvalidInput(
                f"unknown filter {text!r}",
                hint="dangling=true, label=…, reference=…, before=IMAGE, since=IMAGE",
            )
        filters.setdefault(key, []).append(value)
    return Selection(images, filters)


def _record(image: Image, name: str, tag: str, no_trunc: bool) -> dict[str, str]:
    return {
        "ID": image.id if no_trunc else image.short_id, "Repository": name, "Tag": tag, "Digest": _digest_in(image, name),
        "CreatedAt": image.created, "CreatedSince": _age(image.created), "Size": _size(image.size),
    }  # fmt: skip


def _digest_in(image: Image, name: str) -> str:
    from registry_client.reference import parse_reference

    found = (parse_reference(each) for each in image.repo_digests)
    return next((each.digest or _NONE for each in found if each.familiar_name == name), _NONE)


def _show(records: list[dict[str, str]], form: str, digests: bool) -> None:
    from pipeline.cli.container_text import fill
    from pipeline.ui.text import table

    template = form.removeprefix("table").strip()
    if form == "json":
        click.echo("\n".join(json.dumps(record) for record in records), nl=bool(records))
    elif template:
        heads = [_HEADINGS | _MORE_HEADINGS] if form.startswith("table") else []
        for record in (*heads, *records):
            click.echo(fill(template, record).replace("\\t", "\t"))
    else:
        columns = [name for name in _HEADINGS if digests or name != "Digest"]
        click.echo(
            table(
                [_HEADINGS[name] for name in columns],
                [[record[name] for name in columns] for record in records],
            )
        )


def _age(created: str) -> str:
    from datetime import datetime

    from runtime.ages import age

    try:
        return age(time.time() - datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()) + " ago"
    except ValueError:
        return "N/A"


def _size(count: int) -> str:
    from pipeline.ui.text import size

    return size(count)


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
