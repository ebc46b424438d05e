"""A state is believed while its writer lives."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.containers.state import EXITED, RUNNING, State, read_state, write_state
from runtime.store.owners import own_token


def test_a_state_comes_back(tmp_path: Path) -> None:
    state = State()
    state.status, state.pid, state.shim, state.health = RUNNING, 42, own_token(), {"status": "starting"}
    write_state(str(tmp_path), state)
    assert vars(read_state(str(tmp_path))) == vars(state)
    assert os.listdir(tmp_path) == ["state.json"]


def test_without_a_state_it_was_only_created(tmp_path: Path) -> None:
    assert read_state(str(tmp_path)).status == "created"


def test_what_a_dead_shim_said_is_running_was_killed(tmp_path: Path) -> None:
    state = State()
    state.status, state.pid, state.shim = RUNNING, 42, "0.0.1.1"
    write_state(str(tmp_path), state)
    found = read_state(str(tmp_path))
    assert (found.status, found.code, found.pid) == (EXITED, 137, 0)
    assert "killed" in found.error


def test_an_end_that_was_recorded_stays_whoever_wrote_it(tmp_path: Path) -> None:
    state = State()
    state.status, state.code, state.shim = EXITED, 3, "0.0.1.1"
    write_state(str(tmp_path), state)
    assert (read_state(str(tmp_path)).status, read_state(str(tmp_path)).code) == (EXITED, 3)


def test_a_torn_state_is_an_end(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"")
    assert read_state(str(tmp_path)).status == EXITED
