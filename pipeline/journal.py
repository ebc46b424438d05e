"""The memory of runs: `runs/<id>/events.jsonl` has every event in order, the database what came of each node.

`pipe logs`, `pipe runs` and `pipe resume` read only this. A line is written before any renderer sees the event, secrets
are masked already. A run whose process died is told by its owner token: it has no end, and nobody works on it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.event_log import FILE_NAME, read_events
from pipeline.results import NodeResult, result_from_json
from registry_client.values import frozen
from runtime.errors import InvalidInput, NotFound
from runtime.events import Event, Outcome
from runtime.store.owners import is_alive, own_token
from runtime.store.store import Store


@frozen
class Request:
    """What was asked, complete enough to ask it again."""

    kind: str
    names: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "names": list(self.names), "options": dict(self.options)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Request:
        return cls(record["kind"], tuple(record["names"]), tuple(record["options"].items()))


@frozen(kw_only=True)
class RunRecord:
    id: str
    project: str
    root: str
    request: Request
    revision: str
    started: float
    finished: float | None
    outcome: str  # "" while it runs; "interrupted" when its process died


class Journal:
    """The runs of one store."""

    def __init__(self, store: Store) -> None:
        self._database = store.db
        self.directory = os.path.join(store.root, "runs")

    def begin(self, project: str, root: str, request: Request, revision: str) -> str:
        """A new run; its id sorts by time."""
        run = f"{time.strftime('%y%m%d-%H%M%S', time.localtime())}-{os.urandom(3).hex()}"
        os.makedirs(self.path(run), exist_ok=True)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO runs (id, project, root, kind, request, revision, owner, started) VALUES (?,?,?,?,?,?,?,?)",
                (
                    run,
                    project,
                    root,
                    request.kind,
                    json.dumps(request.to_json()),
                    revision,
                    own_token(),
                    time.time(),
                ),
            )
        return run

    def reopen(self, run: str) -> None:
        """Go on with a run that was stopped."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE runs SET owner = ?, finished = NULL, outcome = '' WHERE id = ?", (own_token(), run)
            )

    def end(self, run: str, outcome: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE runs SET finished = ?, outcome = ? WHERE id = ?", (time.time(), outcome, run)
            )

    def discard(self, run: str) -> None:
        """Forget a run that did nothing."""
        import shutil

        with self._database.transaction() as connection:
            connection.execute("DELETE FROM runs WHERE id = ?", (run,))
        shutil.rmtree(self.path(run), ignore_errors=True)

    def record(self, run: str, result: NodeResult) -> None:
        """Note what came of a node; a later attempt replaces it."""
        row = (
            run,
            result.node,
            result.kind,
            result.started,
            result.finished,
            str(result.outcome),
            result.error,
            result.detail,
            result.key,
            result.image,
            json.dumps(result.to_json()),
        )
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO run_nodes VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)

    def path(self, run: str) -> str:
        return os.path.join(self.directory, run)

    def runs(self, project: str = "", limit: int = 50) -> list[RunRecord]:
        """The latest first."""
        where = "WHERE project = ?" if project else ""
        rows = self._database.read(
            f"SELECT * FROM runs {where} ORDER BY started DESC LIMIT {limit:d}", (project,) if project else ()
        )
        return [_run(row) for row in rows]

    def find(self, name: str = "", project: str = "") -> RunRecord:
        """A run by id or unique part of it; the latest without a name."""
        if not name or name in ("last", "latest"):
            found = self.runs(project, 1)
            if not found:
                raise NotFound("there is no run yet", hint="`pipe test` makes one")
            return found[0]
        pattern = f"%{name.replace('%', '').replace('_', '')}%"
        rows = self._database.read(
            "SELECT * FROM runs WHERE id = ? OR id LIKE ? ORDER BY started DESC", (name, pattern)
        )
        exact = [row for row in rows if row["id"] == name] or rows
        if not exact:
            raise NotFound(f"no run {name!r}", hint="`pipe runs` lists them")
        if len(exact) > 1:
            raise InvalidInput(f"{name!r} may be {' or '.join(row['id'] for row in exact[:4])}")
        return _run(exact[0])

    def results(self, run: str) -> dict[str, NodeResult]:
        """The nodes of a run that have ended, in the order they ended."""
        rows = self._database.read("SELECT * FROM run_nodes WHERE run = ? ORDER BY finished", (run,))
        return {row["node"]: _result(row) for row in rows}

    def events(
        self, run: str, *, follow: bool = False, wait: Callable[[float], bool] = lambda s: False
    ) -> Iterator[Event]:
        """The events of a run; with `follow`, those to come too, until it ends. `wait` sleeps and says when to give up."""
        path = os.path.join(self.path(run), FILE_NAME)
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8") as file:
            while True:
                ended = not follow or self._ended(run)
                yield from read_events(file)
                if ended or wait(0.1):
                    return

    def _ended(self, run: str) -> bool:
        return self.find(run).outcome != ""

    def prune(self, keep: int, keep_green: int = 5) -> int:
        """Remove all but the latest `keep` runs, and of those removed keep the latest green ones."""
        import shutil

        rows = self._database.read("SELECT id, outcome, owner, finished FROM runs ORDER BY started DESC")
        green = [row["id"] for row in rows if row["outcome"] == "done"][:keep_green]
        ended = {row["id"] for row in rows if row["finished"] is not None or not is_alive(row["owner"])}
        old = [row["id"] for row in rows[keep:] if row["id"] not in green and row["id"] in ended]
        for run in old:
            shutil.rmtree(self.path(run), ignore_errors=True)
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM runs WHERE id = ?", [(run,) for run in old])
        return len(old)

    def kept_digests(self) -> set[str]:
        """The artifacts that runs and cached results still name."""
        sql = "SELECT result FROM run_nodes UNION ALL SELECT result FROM stage_results"
        records = [json.loads(row["result"]) for row in self._database.read(sql)]
        return {artifact[3] for record in records for artifact in record.get("artifacts", ())}


def _run(row: Any) -> RunRecord:
    running = row["finished"] is None
    outcome = "interrupted" if running and not is_alive(row["owner"]) else row["outcome"]
    return RunRecord(
        id=row["id"],
        project=row["project"],
        root=row["root"],
        request=Request.from_json(json.loads(row["request"])),
        revision=row["revision"],
        started=row["started"],
        finished=row["finished"],
        outcome=outcome,
    )


def _result(row: Any) -> NodeResult:
    return result_from_json(
        json.loads(row["result"]),
        node=row["node"],
        kind=row["kind"],
        outcome=Outcome(row["outcome"]),
        started=row["started"],
        finished=row["finished"],
        error=row["error"],
        detail=row["detail"],
        key=row["key"],
        image=row["image"],
    )
