"""`pipe cache du|ls|prune|gc|export|import` and `pipe why`: the build cache as a person sees it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput, NotFound, did_you_mean

if TYPE_CHECKING:
    from builder.prune import Entry, Policy, Pruned
    from builder.sharing.mounts import Moved
    from builder.sharing.places import Place
    from builder.why import Explanation
    from pipeline.services import Services

_FILTERS = ("until", "id", "type", "unused-for")
# BuildKit's words for what we call otherwise.
_KINDS = {
    "regular": ("exec", "copy", "directory"),
    "exec.cachemount": ("cache mount",),
    "cachemount": ("cache mount",),
    "source.git.checkout": ("git",),
    "source.http": ("http",),
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def cache() -> None:
    """The build cache."""


@cache.command("ls")
@click.option(
    "--format", "form", default="table", type=click.Choice(["table", "json"]), help="table or json."
)
@click.pass_obj
def list_entries(session: Session, form: str) -> None:
    """List the steps and cache mounts that are kept, last used first."""
    from builder.prune import entries

    with session.work(containers=False, progress="none") as services:
        found = entries(services.store)
    if form == "json":
        _print_json(found)
        return
    rows = [("ID", "KIND", "SIZE", "LAST USED", "USES", "STEP")]
    for entry in found:
        rows.append(
            (
                entry.id,
                entry.kind,
                _size(entry.size),
                _ago(entry.used),
                str(entry.uses),
                _first_line(entry.label),
            )
        )
    _print_table(rows)


@cache.command()
@click.pass_obj
def du(session: Session) -> None:
    """Say how much the build cache holds."""
    from builder.prune import entries, on_disk

    with session.work(containers=False, progress="none") as services:
        found, taken = entries(services.store), on_disk(services.store)
    free = sum(entry.size for entry in found if not entry.shared)
    rows = [("KIND", "COUNT", "SIZE")]
    for kind in sorted({entry.kind for entry in found}):
        own = [entry for entry in found if entry.kind == kind]
        rows.append((kind, str(len(own)), _size(sum(entry.size for entry in own))))
    rows.append(("total", str(len(found)), _size(sum(entry.size for entry in found))))
    _print_table(rows)
    click.echo(f"\non disk: {_size(taken)}\nreclaimable: {_size(free)}")


@cache.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also what images share.")
@click.option("--filter", "filters", multiple=True, help="until=24h, id=ID or type=KIND.")
@click.option("--max-used-space", help="Keep the last used up to this size: bytes, 10GB or 10%.")
@click.option("--reserved-space", "--keep-storage", help="Never get below this size.")
@click.option("--min-free-space", help="Go on until this much of the disk is free.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(session: Session, /, force: bool, dry_run: bool, **wanted: Any) -> None:
    """Remove what no image needs."""
    from builder.prune import disk_of
    from builder.prune import prune as run_prune

    if not force and not dry_run:
        click.confirm("Remove the build cache that is not in use?", abort=True)
    with session.work(containers=False, progress="none", makes_room=True) as services:
        policy = _policy(disk_of(services.store).total, **wanted)
        pruned = run_prune(services.store, policy, dry_run=dry_run)
    _print_pruned(pruned, dry_run)


@cache.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_obj
def gc(session: Session, dry_run: bool) -> None:
    """Remove what is old or too much, as builds do once an hour by themselves."""
    from builder.gc import collect_by_default

    with session.work(containers=False, progress="none") as services:
        pruned = collect_by_default(services.store, dry_run=dry_run)
    _print_pruned(pruned, dry_run)


@cache.command("export")
@click.argument("names", nargs=-1, required=True, metavar="[ID...] REF|DIR")
@click.option("--tag", default="latest", help="The name in a directory.")
@click.pass_obj
def export_mounts(session: Session, names: tuple[str, ...], tag: str) -> None:
    """Write cache mounts, all or some, to a registry or a directory."""
    from builder.sharing.mounts import export_mounts as run_export

    with (
        session.work(containers=False, progress="none") as services,
        _place(services, names[-1], tag) as place,
    ):
        moved = run_export(services.store, names[:-1], place, services.cancel)
    _print_moved(moved)


@cache.command("import")
@click.argument("source", metavar="REF|DIR")
@click.option("--tag", default="latest", help="The name in a directory.")
@click.option("--replace", is_flag=True, help="Also those that are here.")
@click.pass_obj
def import_mounts(session: Session, source: str, tag: str, replace: bool) -> None:
    """Take cache mounts from a registry or a directory."""
    from builder.sharing.mounts import import_mounts as run_import

    with session.work(containers=False, progress="none") as services, _place(services, source, tag) as place:
        moved = run_import(services.store, place, services.cancel, replace=replace)
    _print_moved(moved)


@contextmanager
def _place(services: Services, name: str, tag: str) -> Iterator[Place]:
    """A directory is written like one (`./cache`, `/cache`) or is there; all else is a reference."""
    from builder.sharing.places import DirectoryPlace, opened_registry
    from registry_client.reference import parse_reference

    if name.startswith(("/", "./", "../")) or name in (".", "..") or os.path.isdir(name):
        yield DirectoryPlace(name, tag, cancel=services.cancel)
        return
    try:
        parse_reference(name)
    except ValueError as error:
        raise InvalidInput(str(error), hint="a directory is written ./NAME") from error
    with opened_registry(services.images.transport, name, services.cancel) as place:
        yield place


def _print_moved(moved: Sequence[Moved]) -> None:
    for each in moved:
        click.echo(f"{each.id}  {each.what}  {_size(each.size)}  {each.name}")


def _print_pruned(pruned: Pruned, dry_run: bool) -> None:
    for entry in pruned.entries:
        click.echo(f"{entry.id}  {_first_line(entry.label)}")
    click.echo(f"{'Would reclaim' if dry_run else 'Total reclaimed space'}: {_size(pruned.freed)}")


def _policy(
    disk: int,
    everything: bool,
    filters: tuple[str, ...],
    max_used_space: str | None,
    reserved_space: str | None,
    min_free_space: str | None,
) -> Policy:
    from builder.prune import Policy

    given: dict[str, list[str]] = {}
    for text in filters:
        name, equals, value = text.partition("=")
        if name not in _FILTERS or not equals:
            raise InvalidInput(
                f"unknown filter {text!r}", hint=did_you_mean(name, _FILTERS) or ", ".join(_FILTERS)
            )
        given.setdefault(name, []).append(value)
    unused = given.get("until", []) + given.get("unused-for", [])
    return Policy(
        everything=everything,
        unused_seconds=max((_duration(text) for text in unused), default=0.0),
        ids=tuple(given.get("id", ())),
        kinds=tuple(kind for text in given.get("type", ()) for kind in _KINDS.get(text, (text,))),
        max_used=_space(max_used_space, "--max-used-space", disk),
        reserved=_space(reserved_space, "--reserved-space", disk),
        min_free=_space(min_free_space, "--min-free-space", disk) or 0,
    )


def _space(text: str | None, flag: str, disk: int) -> int | None:
    """`10GB`, `512m`, bytes, or `10%` of the disk."""
    if not text:
        return None
    from pipeline.cli.build_flags import parse_size

    share = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", text.strip())
    return parse_size(text, flag) if share is None else int(disk * float(share[1]) / 100)


def _duration(text: str) -> float:
    """`24h`, `1h30m`, `7d`."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"{text!r} is not a duration", hint="for example 90s, 30m, 24h or 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


@click.command()
@click.argument("image")
@click.argument("step", required=False)
@click.pass_obj
def why(session: Session, image: str, step: str | None) -> None:
    """Say, step by step, what was different when an image's steps ran again."""
    from builder.why import explain

    with session.work(containers=False, progress="none") as services:
        found = explain(services.store, services.images.get(image).diff_ids)
    chosen = [each for number, each in enumerate(found, 1) if _is_meant(step, number, each)]
    if not chosen:
        raise NotFound(
            f"no step {step!r} in the cache records of {image}" if step else f"no cache record of {image}"
        )
    for each in chosen:
        _print_explanation(each)


def _is_meant(step: str | None, number: int, explanation: Explanation) -> bool:
    return step is None or step == str(number) or step.lower() in explanation.label.lower()


def _print_explanation(explanation: Explanation) -> None:
    # An epoch is whole seconds; a clock is not.
    of_epoch = explanation.made % 10**9 == 0
    ran = f"with SOURCE_DATE_EPOCH={explanation.made // 10**9}" if of_epoch else _ago(explanation.made)
    click.echo(f"{_first_line(explanation.label)}\n  ran {ran}")
    if not explanation.earlier:
        click.echo("  it had never run before")
        return
    if not explanation.differences:
        click.echo("  nothing was different: it was told to run again (--no-cache), or its record was pruned")
    for difference in explanation.differences:
        click.echo(
            f"  {difference.field}: {_first_line(difference.before) or '-'} -> {_first_line(difference.now) or '-'}"
        )


# --- showing ------------------------------------------------------------------------------------------------------


def _print_json(found: list[Entry]) -> None:
    import json
    from dataclasses import asdict

    for entry in found:
        click.echo(json.dumps(asdict(entry)))


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _first_line(text: str, limit: int = 100) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= 1000
    return ""


def _ago(time_ns: int) -> str:
    seconds = max(0, time.time_ns() - time_ns) // 10**9
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return f"{seconds}s ago"
