"""What is said at the end of a run."""

from __future__ import annotations

from pathlib import Path

from pipeline.junit import TestReport as Report
from pipeline.plan import Kind
from pipeline.results import NodeResult
from pipeline.runner import RunResult
from pipeline.stage_key import tree_digest
from pipeline.ui.summary import format_run
from runtime.events import Outcome
from tests.support.pipeline import loaded, planned

TEXT = "name: shop\nimages: {app: {}}\nstages: {a: {image: app, run: x}, b: {image: app, run: x}}\n"


def node(name: str, outcome: Outcome, **given: object) -> NodeResult:
    kind = name.partition("/")[0]
    return NodeResult(node=name, kind=kind, outcome=outcome, started=10.0, finished=12.5, **given)  # type: ignore[arg-type]


def test_a_run_is_counted_by_kind_and_outcome(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT))
    nodes = [
        node("image/app", Outcome.CACHED),
        node("stage/a", Outcome.DONE, tests=Report(tests=3)),
        node("stage/b", Outcome.SKIPPED, error="a failed"),
    ]
    text = format_run(plan, RunResult("r1", Outcome.DONE, {n.node: n for n in nodes}))
    assert text.splitlines() == [
        "run r1: 1 image cached, 1 stage done, 1 stage skipped in 2.5s",
        "  tests: 3 passed",
        "  stage b: a failed",
    ]


def test_a_build_names_its_images(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT), Kind.IMAGE)
    nodes = {"image/app": node("image/app", Outcome.DONE, detail="abc")}
    assert "  image app: shop-app:latest = abc" in format_run(plan, RunResult("r1", Outcome.DONE, nodes))


def test_a_work_trees_digest_is_of_names_kinds_permissions_and_content(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("1")
    first = tree_digest(str(tmp_path))
    (tmp_path / ".git").mkdir()
    (tmp_path / "d" / "f").touch()
    assert tree_digest(str(tmp_path)) == first
    (tmp_path / "d" / "f").chmod(0o755)
    second = tree_digest(str(tmp_path))
    (tmp_path / "d" / "f").write_text("2")
    third = tree_digest(str(tmp_path))
    (tmp_path / "link").symlink_to("d")
    assert len({first, second, third, tree_digest(str(tmp_path))}) == 4
