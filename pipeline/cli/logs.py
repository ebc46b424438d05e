"""`pipe logs` and `pipe runs`. A name that is no run is taken for a container's, as `docker logs` would."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from pipeline.config.units import show_duration
from runtime.errors import NotFound

if TYPE_CHECKING:
    from pipeline.journal import Journal, RunRecord
    from pipeline.services import Services
    from runtime.events import Event


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN] [NODE] | CONTAINER")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line came.")
@click.option("-n", "--tail", default="all", help="Only the last lines.")
@click.option("--since", default="", help="Containers: only after this time.")
@click.option("--until", default="", help="Containers: only before this time.")
@click.option("--grep", default="", metavar="PATTERN", help="Only lines that match.")
@click.option("--json", "as_json", is_flag=True, help="The run's events as JSON lines.")
@click.pass_obj
def logs(
    session: Session,
    names: tuple[str, ...],
    follow: bool,
    timestamps: bool,
    tail: str,
    since: str,
    until: str,
    grep: str,
    as_json: bool,
) -> int:
    """Show the log of a run (the last one without RUN), of one of its nodes, or of a container."""
    with session.work(containers=False, progress="none") as services:
        from pipeline.journal import Journal

        journal = Journal(services.store)
        found = _run_and_node(journal, names)
        if found is None:
            return _container_logs(services, names, follow, timestamps, tail, since, until)
        run, node = found
        shown = Printer(run, node, timestamps=timestamps, grep=grep, as_json=as_json)
        lines = list(shown.lines(journal.events(run.id))) if not follow else None
        if lines is None:
            for line in shown.lines(journal.events(run.id, follow=True, wait=services.cancel.wait)):
                click.echo(line)
            return 0
    for line in lines[-int(tail) :] if tail.isdigit() and int(tail) else lines:
        click.echo(line)
    return 0


def _run_and_node(journal: Journal, names: tuple[str, ...]) -> tuple[RunRecord, str] | None:
    """`RUN NODE`, `NODE` of the last run, `RUN`; None when it is none of these.

    A node's name goes before a part of a run's id, which any short name may be.
    """
    if not names:
        return journal.find(), ""
    name = names[0]
    if len(names) > 1:
        try:
            return journal.find(name), names[1]
        except NotFound:
            return None
    last = next(iter(journal.runs(limit=1)), None)
    if last is None:
        return None
    if name not in ("last", "latest", last.id) and _has_node(journal, last, name):
        return last, name
    try:
        return journal.find(name), ""
    except NotFound:
        return None


def _has_node(journal: Journal, run: RunRecord, name: str) -> bool:
    if any(_is_node(node, name) for node in journal.results(run.id)):
        return True
    # While it runs, only its events tell of it.
    from runtime.events import Started

    return run.finished is None and any(
        isinstance(event, Started) and _is_node(event.node, name) for event in journal.events(run.id)
    )


def _is_node(node: str, name: str) -> bool:
    return (
        not name
        or node == name
        or node.partition("/")[2] == name
        or node.partition("/")[2].startswith((f"{name} (", f"{name}/"))
    )


class Printer:
    """From events to lines of text, or back to JSON lines."""

    def __init__(self, run: RunRecord, node: str, *, timestamps: bool, grep: str, as_json: bool) -> None:
        self.run, self.node, self.timestamps, self.as_json = run, node, timestamps, as_json
        self.pattern = re.compile(grep) if grep else None
        self._rest: dict[tuple[str, str], bytes] = {}
        self._several = not node

    def lines(self, events: Iterable[Event]) -> Iterator[str]:
        from runtime.events import Changed, Progress

        for event in events:
            if isinstance(event, Changed | Progress) or not self._wanted(event.node):
                continue
            if self.as_json:
                import json

                from pipeline.event_log import event_to_json

                yield json.dumps(event_to_json(event), ensure_ascii=False)
            else:
                yield from (
                    line for line in self._text(event) if self.pattern is None or self.pattern.search(line)
                )

    def _wanted(self, node: str) -> bool:
        return _is_node(node, self.node) or (
            bool(self.node) and _is_node("/".join(node.split("/")[:2]), self.node)
        )

    def _text(self, event: Event) -> list[str]:
        from runtime.events import Finished, Output, Started, Warned

        match event:
            case Output():
                key = (event.node, event.stream)
                *whole, self._rest[key] = (self._rest.get(key, b"") + event.data).split(b"\n")
                return [self._mark(event, line.decode("utf-8", "replace")) for line in whole]
            case Warned():
                return [self._mark(event, f"warning: {event.rule and f'{event.rule}: '}{event.message}")]
            case Started() if self._several:
                return [self._mark(event, "started")]
            case Finished():
                rest = [
                    self._mark(event, self._rest.pop(k).decode("utf-8", "replace"))
                    for k in list(self._rest)
                    if k[0] == event.node and self._rest[k]
                ]
                said = event.error or event.detail
                return [*rest, self._mark(event, f"{event.outcome}{f': {said}' if said else ''}")]
            case _:
                return []

    def _mark(self, event: Event, text: str) -> str:
        stamp = time.strftime("%H:%M:%S ", time.localtime(event.time)) if self.timestamps else ""
        name = f"{getattr(event, 'node', '').partition('/')[2]} | " if self._several else ""
        return f"{stamp}{name}{text}"


def _container_logs(
    services: Services,
    names: tuple[str, ...],
    follow: bool,
    timestamps: bool,
    tail: str,
    since: str,
    until: str,
) -> int:
    container = services.containers.find(names[0])
    if container is None:
        raise NotFound(
            f"no run, node or container {names[0]!r}", hint="`pipe runs` and `pipe ps -a` list them"
        )
    from pipeline.cli.container_logs import show_logs

    show_logs(services, names[0], follow=follow, tail=tail, since=since, until=until, timestamps=timestamps)
    return 0


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.option(
    "--prune", type=click.IntRange(1), default=None, metavar="KEEP", help="Forget all but the last KEEP runs."
)
@click.pass_obj
def runs(session: Session, limit: int, as_json: bool, prune: int | None) -> int:
    """List earlier runs, the latest first."""
    from pipeline.journal import Journal

    with session.work(containers=False, progress="none") as services:
        journal = Journal(services.store)
        if prune is not None:
            click.echo(_prune(services, journal, prune), err=True)
        found = journal.runs(limit=limit)
    if as_json:
        import json

        for run in found:
            record = {
                "id": run.id,
                "project": run.project,
                "outcome": run.outcome,
                "started": run.started,
                "finished": run.finished,
            }
            click.echo(json.dumps({**record, **run.request.to_json(), "revision": run.revision}))
        return 0
    for run in found:
        click.echo(_run_line(run))
    sys.stdout.flush()
    return 0


def _prune(services: Services, journal: Journal, keep: int) -> str:
    """Forget old runs, results not used for a month, and the artifacts only they had."""
    from pipeline.artifacts import ArtifactStore
    from pipeline.results import Results

    removed = journal.prune(keep)
    Results(services.store.db).prune(time.time() - 30 * 86400)
    freed = ArtifactStore(services.store.root).prune(journal.kept_digests(), time.time() - 3600)
    return f"{removed} runs removed, {freed / 1e6:.1f} MB of artifacts freed"


def _run_line(run: RunRecord) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
    took = show_duration(run.finished - run.started) if run.finished else "-"
    asked = " ".join((run.request.kind, *run.request.names))
    return f"{run.id}  {when}  {run.outcome or 'running':12} {took:>7}  {run.project}: {asked}"
