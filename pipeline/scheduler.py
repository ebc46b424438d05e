"""Decide what runs next. One thread owns all state and waits on one queue of completions; workers only execute.

A node starts the moment the last of what it needs is done, if a job is free and its matrix allows another one. A node
whose need did not end green is skipped. If nothing runs and nothing is ready, the plan is done.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from builder.pools import Pool
from pipeline.plan import Node, Plan
from pipeline.results import NodeResult
from pipeline.spec import StageSpec
from runtime.cancel import Cancel
from runtime.errors import Cancelled, PipeError
from runtime.events import Emit, Finished, Outcome, Started

# Runs one node. Blocks; returns what came of it, and raises only for bugs.
Execute = Callable[[Node, Mapping[str, NodeResult], Cancel], NodeResult]


class Scheduler:
    def __init__(self, plan: Plan, execute: Execute, *, jobs: int, emit: Emit, cancel: Cancel) -> None:
        self._plan, self._execute, self._emit, self._cancel = plan, execute, emit, cancel
        self._jobs = max(1, jobs)
        self._waiting = {node.name: node for node in plan.nodes}
        self._running: dict[str, tuple[Node, Cancel]] = {}
        self._results: dict[str, NodeResult] = {}
        self._done: queue.SimpleQueue[NodeResult | BaseException] = queue.SimpleQueue()
        self.on_result: Callable[[NodeResult], None] = lambda result: None

    def run(self) -> dict[str, NodeResult]:
        """Run the whole plan; the result of every node, in the order they ended."""
        with ExitStack() as stack:
            pool = stack.enter_context(Pool("node", self._jobs))
            stack.enter_context(self._cancel.on_cancel(self._stop_running))
            while True:
                self._start_what_can(pool)
                if not self._running:
                    return self._results
                self._finish(self._done.get())

    def _stop_running(self) -> None:
        for _, token in list(self._running.values()):
            token.cancel(self._cancel.reason)

    def _start_what_can(self, pool: Pool) -> None:
        progress = True
        while progress:
            progress = False
            for node in list(self._waiting.values()):
                reason = self._skip_reason(node)
                if reason:
                    del self._waiting[node.name]
                    self._skip(node, reason)
                    progress = True
                elif len(self._running) < self._jobs and self._ready(node):
                    del self._waiting[node.name]
                    self._start(pool, node)

    def _ready(self, node: Node) -> bool:
        if any(edge.node not in self._results for edge in node.needs):
            return False
        limit = _max_parallel(node)
        return not limit or sum(other.group == node.group for other, _ in self._running.values()) < limit

    def _skip_reason(self, node: Node) -> str:
        if self._cancel.cancelled:
            return self._cancel.reason or "cancelled"
        if node.skip:
            return node.skip
        for edge in node.needs:
            result = self._results.get(edge.node)
            if result is None or result.green:
                continue
            title = edge.node.partition("/")[2]
            if result.outcome is not Outcome.SKIPPED:
                return f"{title} {_past(result.outcome)}"
            if not edge.optional or result.detail != "condition":
                return f"{title} was skipped"
        if _fail_fast(node) and any(r.outcome is Outcome.FAILED for r in self._group_results(node)):
            return "another combination failed"
        return ""

    def _group_results(self, node: Node) -> list[NodeResult]:
        names = [other.name for other in self._plan.nodes if other.group == node.group]
        return [self._results[name] for name in names if name in self._results]

    def _skip(self, node: Node, reason: str) -> None:
        outcome = Outcome.CANCELLED if self._cancel.cancelled else Outcome.SKIPPED
        now = time.time()
        detail = "condition" if node.skip else ""
        self._emit(Started(node=node.name, name=f"{node.kind} {node.title}", time=now))
        self._emit(Finished(node=node.name, outcome=outcome, detail=reason, time=now))
        result = NodeResult(
            node=node.name,
            kind=node.kind,
            outcome=outcome,
            error=reason,
            detail=detail,
            started=now,
            finished=now,
        )
        self._results[node.name] = result
        self.on_result(result)

    def _start(self, pool: Pool, node: Node) -> None:
        token = Cancel()
        self._running[node.name] = (node, token)
        if self._cancel.cancelled:
            token.cancel(self._cancel.reason)
        pool.submit(self._work, node, dict(self._results), token)

    def _work(self, node: Node, results: Mapping[str, NodeResult], token: Cancel) -> None:
        started = time.time()
        self._emit(Started(node=node.name, name=f"{node.kind} {node.title}", time=started))
        try:
            result = self._execute(node, results, token)
        except PipeError as error:
            result = failed(node, error, started)
        except BaseException as error:  # noqa: BLE001  a bug: the deciding thread raises it
            self._done.put(error)
            return
        detail = result.detail if result.green or result.outcome is Outcome.SKIPPED else ""
        self._emit(Finished(node=node.name, outcome=result.outcome, error=result.error, detail=detail))
        self._done.put(result)

    def _finish(self, result: NodeResult | BaseException) -> None:
        if isinstance(result, BaseException):
            self._cancel.cancel("internal error")
            raise result
        node, _ = self._running.pop(result.node)
        self._results[result.node] = result
        self.on_result(result)
        if result.outcome is Outcome.FAILED and _fail_fast(node):
            for other, token in self._running.values():
                if other.group == node.group:
                    token.cancel("another combination failed")


def _max_parallel(node: Node) -> int:
    return (
        node.subject.matrix.max_parallel if isinstance(node.subject, StageSpec) and node.subject.matrix else 0
    )


def _fail_fast(node: Node) -> bool:
    return (
        isinstance(node.subject, StageSpec)
        and node.subject.matrix is not None
        and node.subject.matrix.fail_fast
    )


def _past(outcome: Outcome) -> str:
    words = {Outcome.FAILED: "failed", Outcome.ERROR: "could not run", Outcome.TIMEOUT: "timed out"}
    return words.get(outcome, f"was {outcome}")


def outcome_of(error: PipeError) -> Outcome:
    """Whose fault it was: the step's, the host's, nobody's."""
    from runtime import errors

    match error:
        case Cancelled():
            return Outcome.CANCELLED
        case errors.TimedOut():
            return Outcome.TIMEOUT
        case errors.HostFault() | errors.Unavailable():
            return Outcome.ERROR
        case _:
            return Outcome.FAILED


def failed(node: Node, error: PipeError, started: float) -> NodeResult:
    """The result of a node that ended with an error."""
    return NodeResult(
        node=node.name,
        kind=node.kind,
        outcome=outcome_of(error),
        error=str(error),
        exit_code=getattr(error, "exit_code", 0),
        output=getattr(error, "output", ""),
        started=started,
        finished=time.time(),
        cause=error,
    )


def run_outcome(results: Mapping[str, NodeResult], cancelled: Outcome | None = None) -> Outcome:
    """The worst that happened. `cancelled`: why the run as a whole was stopped, if it was."""
    if cancelled is not None:
        return cancelled
    outcomes = {result.outcome for result in results.values()}
    for outcome in (Outcome.ERROR, Outcome.FAILED, Outcome.TIMEOUT, Outcome.CANCELLED):
        if outcome in outcomes:
            return outcome
    return Outcome.DONE
