"""Dockerfiles in the manner of well-known projects, with contexts: what we build is what docker's BuildKit built from them.

Its results are recorded beside the cases (`tests/support/builds/record.py`): each file with type, mode, owner, time, links, content and
attributes; the config; the history.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builds.builders import Pipe
from tests.support.builds.case import Case, load_cases
from tests.support.builds.compare import differences
from tests.support.builds.record import CASES, record_of

pytestmark = pytest.mark.linux
# What runs each time; the others are slow together.
SAMPLE = (
    "arguments", "copy-patterns", "deleting", "golang-service", "heredocs", "instructions", "links-in-stages", "node-app",
    "postgres-like", "special-files",
)  # fmt: skip
RECORDED = [
    pytest.param(case, id=case.name, marks=() if case.name in SAMPLE else pytest.mark.slow)
    for case in load_cases(CASES)
    if case.base == "busybox" and case.suits("docker")
]


@pytest.mark.parametrize("case", RECORDED)
def test_what_is_built_is_what_buildkit_built(pipe: Pipe, case: Case, tmp_path: Path) -> None:
    context = case.write(tmp_path / "context")
    outcome = pipe.build(context, case.arguments(context))
    assert outcome.image, outcome.log
    theirs = json.loads(record_of(case).read_text())
    assert differences(outcome.image, theirs, case) == []
