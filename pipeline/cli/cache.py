"""`pipe cache du|ls|prune` and `pipe why`: the build cache as a person sees it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput, NotFound, did_you_mean

if TYPE_CHECKING:
    from builder.prune import Entry, Policy
    from builder.why import Explanation

_FILTERS = ("until", "id", "type", "unused-for")
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
    from builder.prune import entries

    with session.work(containers=False, progress="none") as services:
        found = entries(services.store)
    free = sum(entry.size for entry in found if not entry.shared)
    rows = [("KIND", "COUNT", "SIZE")]
    for kind in sorted({entry.kind for entry in found}):
        own = [entry for entry in found if entry.kind == kind]
        rows.append((kind, str(len(own)), _size(sum(entry.size for entry in own))))
    rows.append(("total", str(len(found)), _size(sum(entry.size for entry in found))))
    _print_table(rows)
    click.echo(f"\nreclaimable: {_size(free)}")


@cache.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also what images share.")
@click.option("--filter", "filters", multiple=True, help="until=24h, id=ID or type=KIND.")
@click.option("--keep-storage", help="Keep the last used up to this size.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(
    session: Session, everything: bool, filters: tuple[str, ...], keep_storage: str | None, force: bool
) -> None:
    """Remove what no image needs."""
    from builder.prune import prune as run_prune

    policy = _policy(everything, filters, keep_storage)
    if not force:
        click.confirm("Remove the build cache that is not in use?", abort=True)
    with session.work(containers=False, progress="none") as services:
        pruned = run_prune(services.store, policy)
    for entry in pruned.entries:
        click.echo(f"{entry.id}  {_first_line(entry.label)}")
    click.echo(f"Total reclaimed space: {_size(pruned.freed)}")


def _policy(everything: bool, filters: tuple[str, ...], keep_storage: str | None) -> Policy:
    from builder.prune import Policy
    from pipeline.cli.build_flags import parse_size

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
        keep_bytes=parse_size(keep_storage, "--keep-storage") if keep_storage else None,
        ids=tuple(given.get("id", ())),
        kinds=tuple(given.get("type", ())),
    )


def _duration(text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"{text!r} is not a duration", hint="for example 90s, 30m, 24h or 7d") from error


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
    click.echo(f"{_first_line(explanation.label)}\n  ran {_ago(explanation.made)}")
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
