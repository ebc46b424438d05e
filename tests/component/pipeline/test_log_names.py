"""Which run and node the words of `pipe logs` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.logs import _run_and_node
from pipeline.event_log import FILE_NAME, EventLog
from pipeline.journal import Journal, Request
from pipeline.results import NodeResult
from runtime.events import Outcome, Started, ignore
from runtime.store import Store


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Store.open(str(tmp_path / "store")))


def run_with(journal: Journal, *nodes: str, ended: bool = True) -> str:
    run = journal.begin("shop", "/src", Request("test"), "")
    for node in nodes:
        journal.record(run, NodeResult(node=node, kind="stage", outcome=Outcome.DONE))
    if ended:
        journal.end(run, "done")
    return run


def meant(journal: Journal, *names: str) -> tuple[str, str] | None:
    found = _run_and_node(journal, names)
    return found and (found[0].id, found[1])


def test_a_stage_goes_before_a_run_whose_id_begins_or_ends_like_it(journal: Journal) -> None:
    earlier = run_with(journal, "stage/x")
    part = earlier[-1]
    last = run_with(journal, f"stage/{part}")
    assert meant(journal, part) == (last, part)
    assert meant(journal, earlier) == (earlier, "")
    assert meant(journal, last) == (last, "")


def test_a_stage_that_runs_now_is_known_by_its_events(journal: Journal) -> None:
    run = run_with(journal, ended=False)
    with EventLog(journal.path(run), ignore) as log:
        log(Started(node="stage/unit", name="stage unit"))
    assert (Path(journal.path(run)) / FILE_NAME).exists()
    assert meant(journal, "unit") == (run, "unit")


def test_what_is_neither_is_left_to_the_containers(journal: Journal) -> None:
    assert meant(journal, "web") is None
    run = run_with(journal, "stage/unit")
    assert meant(journal, "web") is None
    assert meant(journal, "last") == (run, "")
    assert meant(journal, run[:6], "unit") == (run, "unit")
