"""What came of nodes, and the green results of stages that need not be repeated.

A stage is a pure function of what its key covers: image ids, script, variables, services, inputs. The key's named parts
are kept, so that `pipe plan --why` can say which of them changed. Secrets are in a key by name only.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

from pipeline.artifacts import Artifact
from pipeline.config.container import Pairs
from pipeline.junit import TestReport
from registry_client.values import field, frozen
from runtime.events import Outcome
from runtime.store.database import Database

GREEN = frozenset((Outcome.DONE, Outcome.CACHED, Outcome.WARNING))
VERSION = "stage.v1"


@frozen(kw_only=True)
class NodeResult:
    """`image` is the id built, tested or deployed; `key` that of a stage's result."""

    node: str
    kind: str
    outcome: Outcome
    started: float = 0.0
    finished: float = 0.0
    error: str = ""
    detail: str = ""
    key: str = ""
    image: str = ""
    exit_code: int = 0
    attempts: int = 1
    outputs: Pairs = ()
    tests: TestReport | None = None
    artifacts: tuple[Artifact, ...] = ()
    references: tuple[str, ...] = ()  # what a push made
    output: str = field(default="", compare=False)  # the last lines of a failure
    cause: BaseException | None = field(default=None, compare=False)

    @property
    def green(self) -> bool:
        return self.outcome in GREEN

    def to_json(self) -> dict[str, Any]:
        """What is beside the columns of its row."""
        record: dict[str, Any] = {"exit_code": self.exit_code, "attempts": self.attempts}
        record["outputs"] = [list(pair) for pair in self.outputs]
        record["tests"] = self.tests.to_json() if self.tests else None
        record["artifacts"] = [artifact.to_json() for artifact in self.artifacts]
        record["references"] = list(self.references)
        return record


def result_from_json(record: dict[str, Any], **columns: Any) -> NodeResult:
    """A result from its row; unknown keys of a newer version are left alone."""
    tests = record.get("tests")
    return NodeResult(
        exit_code=record.get("exit_code", 0),
        attempts=record.get("attempts", 1),
        outputs=tuple((str(name), str(value)) for name, value in record.get("outputs", ())),
        tests=TestReport.from_json(tests) if tests else None,
        artifacts=tuple(Artifact.from_json(row) for row in record.get("artifacts", ())),
        references=tuple(record.get("references", ())),
        **columns,
    )


@frozen
class Key:
    """A key and the named fields it was made of."""

    digest: str
    fields: Mapping[str, str]


def make_key(fields: Mapping[str, Any]) -> Key:
    """One canonical record with a version tag; each field is kept as a text short enough to show."""
    texts = {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in sorted(fields.items())
    }
    record = json.dumps([VERSION, texts], sort_keys=True, ensure_ascii=False)
    return Key(hashlib.sha256(record.encode("utf-8", "surrogatepass")).hexdigest(), texts)


@frozen
class Cached:
    result: NodeResult
    log: tuple[tuple[str, bytes], ...]
    run: str


class Results:
    """Green stage results by key, and which images have been verified by which stages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: Key, node: str) -> Cached | None:
        row = self._database.one("SELECT * FROM stage_results WHERE key = ?", (key.digest,))
        if row is None:
            return None
        with self._database.transaction() as connection:
            connection.execute("UPDATE stage_results SET used = ? WHERE key = ?", (time.time(), key.digest))
        result = result_from_json(
            json.loads(row["result"]), node=node, kind="stage", outcome=Outcome.CACHED, key=key.digest
        )
        return Cached(result, _unpack_log(row["log"]), row["run"])

    def keep(
        self, key: Key, project: str, run: str, result: NodeResult, log: list[tuple[str, bytes]]
    ) -> None:
        now = time.time()
        row = (
            key.digest,
            project,
            result.node.partition("/")[2],
            run,
            now,
            now,
            json.dumps(dict(key.fields)),
            json.dumps(result.to_json()),
            _pack_log(log),
        )
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO stage_results VALUES (?,?,?,?,?,?,?,?,?)", row)

    def changed_fields(self, key: Key, project: str, stage: str) -> tuple[str, ...]:
        """The fields in which the last green result of this stage differs from `key`; none when there was no result."""
        row = self._database.one(
            "SELECT fields FROM stage_results WHERE project = ? AND stage = ? ORDER BY made DESC LIMIT 1",
            (project, stage),
        )
        if row is None:
            return ()
        old = json.loads(row["fields"])
        return tuple(name for name in sorted({*old, *key.fields}) if old.get(name) != key.fields.get(name))

    def verify(self, project: str, run: str, images: list[str], stages: list[str]) -> None:
        """Note that these stages were green in a run that built these images."""
        rows = [(project, image, stage, run, time.time()) for image in images for stage in stages]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO verified_images VALUES (?,?,?,?,?)", rows)

    def verified(self, project: str, image: str) -> set[str]:
        """The stages that were green for this image."""
        sql = "SELECT stage FROM verified_images WHERE project = ? AND image = ?"
        return {row["stage"] for row in self._database.read(sql, (project, image))}

    def prune(self, before: float) -> int:
        with self._database.transaction() as connection:
            return int(connection.execute("DELETE FROM stage_results WHERE used < ?", (before,)).rowcount)


def _pack_log(log: list[tuple[str, bytes]]) -> bytes:
    lines = [[stream, data.decode("utf-8", "surrogateescape")] for stream, data in log]
    return zlib.compress(json.dumps(lines).encode("utf-8", "surrogatepass"), 1)


def _unpack_log(data: bytes) -> tuple[tuple[str, bytes], ...]:
    lines = json.loads(zlib.decompress(data).decode("utf-8", "surrogatepass"))
    return tuple((str(stream), str(text).encode("utf-8", "surrogateescape")) for stream, text in lines)
