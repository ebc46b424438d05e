"""How a run is summed up when it has ended: what was done, the tests, where it runs. The failures themselves follow as errors."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from pipeline.config.units import show_duration
from pipeline.image import local_name
from pipeline.junit import merge_reports
from pipeline.plan import Kind, Plan
from pipeline.results import NodeResult
from pipeline.runner import RunResult
from runtime.events import Outcome

_WORDS = {
    Outcome.DONE: "done",
    Outcome.CACHED: "cached",
    Outcome.FAILED: "failed",
    Outcome.ERROR: "could not run",
    Outcome.TIMEOUT: "timed out",
    Outcome.CANCELLED: "cancelled",
    Outcome.SKIPPED: "skipped",
    Outcome.WARNING: "failed (allowed)",
}


def format_run(plan: Plan, result: RunResult) -> str:
    """A few lines: counts per kind, tests, images or places, the run's id."""
    lines = [f"run {result.id}: {', '.join(_counts(result.nodes))}{_duration(result.nodes)}"]
    reports = [node.tests for node in result.nodes.values() if node.tests]
    if reports:
        lines.append(f"  tests: {merge_reports(reports).summary}")
    for node in plan.nodes:
        ended = result.nodes.get(node.name)
        if ended is not None:
            lines.extend(_line(ended, plan))
    return "\n".join(lines)


def _counts(nodes: Mapping[str, NodeResult]) -> list[str]:
    counted: dict[tuple[str, Outcome], int] = {}
    for node in nodes.values():
        counted[node.kind, node.outcome] = counted.get((node.kind, node.outcome), 0) + 1
    return [
        f"{count} {kind if count == 1 else _plural(kind)} {_WORDS[outcome]}"
        for (kind, outcome), count in counted.items()
    ]


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("sh") else f"{kind}s"


def _duration(nodes: Mapping[str, NodeResult]) -> str:
    starts = [node.started for node in nodes.values() if node.started]
    if not starts:
        return ""
    return f" in {show_duration(max(node.finished for node in nodes.values()) - min(starts))}"


def _line(node: NodeResult, plan: Plan) -> list[str]:
    title = node.node.replace("/", " ", 1)
    if node.outcome is Outcome.SKIPPED:
        return [f"  {title}: {node.error}"]
    if node.outcome is Outcome.WARNING:
        return [f"  {title}: {node.error} (allowed to fail)"]
    if node.green and node.kind == "image" and plan.goal.kind is Kind.IMAGE:
        return [f"  {title}: {local_name(plan.spec, title.partition(' ')[2])} = {node.detail}"]
    if node.green and node.kind in ("push", "deploy"):
        return [f"  {title}: {node.detail}"]
    return []


def show_run(plan: Plan, result: RunResult, *, to_stderr: bool = False) -> None:
    print(format_run(plan, result), file=sys.stderr if to_stderr else sys.stdout, flush=True)
