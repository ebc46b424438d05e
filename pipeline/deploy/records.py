"""The history of environments: every deploy with its release, who asked for it, and what came of it."""

from __future__ import annotations

import json
import time
from typing import Any

from pipeline.deploy.release import Release, release_from_json, release_to_json
from registry_client.values import frozen
from runtime.errors import NotFound
from runtime.store.database import Database

RUNNING, DONE, FAILED, UNCHANGED = "", "done", "failed", "unchanged"


@frozen(kw_only=True)
class Deployment:
    """`number` counts the deploys of one environment from 1; `reason` says what it was if not a plain deploy."""

    number: int
    environment: str
    run: str
    revision: str
    who: str
    started: float
    finished: float | None
    outcome: str
    reason: str
    release: Release


class Deployments:
    """The deployments of one pipeline."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def begin(self, release: Release, *, run: str, revision: str, who: str, reason: str = "") -> int:
        """Note a deploy before anything is changed; its number."""
        with self._database.transaction(durable=True) as connection:
            row = connection.execute(
                "SELECT max(number) AS last FROM deployments WHERE project = ? AND environment = ?",
                (self._pipeline, release.environment),
            ).fetchone()
            number = (row["last"] or 0) + 1
            connection.execute(
                "INSERT INTO deployments (project, environment, number, run, revision, who, started, reason, config_hash, release)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    self._pipeline,
                    release.environment,
                    number,
                    run,
                    revision,
                    who,
                    time.time(),
                    reason,
                    release.config_hash,
                    json.dumps(release_to_json(release)),
                ),
            )
        return number

    def end(self, environment: str, number: int, outcome: str, reason: str = "") -> None:
        with self._database.transaction(durable=True) as connection:
            connection.execute(
                "UPDATE deployments SET finished = ?, outcome = ?, reason = CASE WHEN ? = '' THEN reason ELSE ? END"
                " WHERE project = ? AND environment = ? AND number = ?",
                (time.time(), outcome, reason, reason, self._pipeline, environment, number),
            )

    def history(self, environment: str, limit: int = 20) -> list[Deployment]:
        """The latest first."""
        rows = self._database.read(
            f"SELECT * FROM deployments WHERE project = ? AND environment = ? ORDER BY number DESC LIMIT {limit:d}",
            (self._pipeline, environment),
        )
        return [_deployment(row) for row in rows]

    def current(self, environment: str) -> Deployment | None:
        """What should be running: the last deploy that succeeded."""
        return next((d for d in self.history(environment, 200) if d.outcome == DONE), None)

    def earlier(self, environment: str, number: int = 0) -> Deployment:
        """The deploy to go back to: the one of that number, else the last good one that differs from the current."""
        history = [d for d in self.history(environment, 1000) if d.outcome == DONE]
        if number:
            found = next((d for d in history if d.number == number), None)
            if found is None:
                raise NotFound(
                    f"no successful deploy {number} of `{environment}`",
                    hint=f"`pipe env {environment}` lists them",
                )
            return found
        current = history[0] if history else None
        found = next(
            (d for d in history[1:] if current and d.release.config_hash != current.release.config_hash), None
        )
        if found is None:
            raise NotFound(
                f"`{environment}` has no earlier release to go back to",
                hint=f"`pipe env {environment}` lists them",
            )
        return found


def _deployment(row: Any) -> Deployment:
    return Deployment(
        number=row["number"],
        environment=row["environment"],
        run=row["run"],
        revision=row["revision"],
        who=row["who"],
        started=row["started"],
        finished=row["finished"],
        outcome=row["outcome"],
        reason=row["reason"],
        release=release_from_json(json.loads(row["release"])),
    )
