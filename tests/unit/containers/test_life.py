"""The order of things in a container's life, with a process that does as it is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from runtime.containers.shim.life import Life
from runtime.containers.shim.loop import Loop
from runtime.containers.state import read_state
from runtime.sandbox.embedded import Embedded
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import ExitInfo


class FakeProcess:
    def __init__(self) -> None:
        self.pid, self.terminal = os.getpid(), -1
        self.signals: list[int] = []
        self.code = 0

    def kill(self, number: int) -> None:
        self.signals.append(number)

    def wait(self) -> ExitInfo:
        return ExitInfo(self.code)


class FakeSpawner:
    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.failing = False

    def create(self, *_: object, **__: object) -> FakeProcess:
        if self.failing:
            raise SandboxError("no such thing", operation="mount /x", kind="input")
        self.processes.append(FakeProcess())
        return self.processes[-1]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def spawner() -> FakeSpawner:
    return FakeSpawner()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def life_of(tmp_path: Path, spawner: FakeSpawner, clock: Clock, policy: str = "no") -> Life:
    argument: dict[str, Any] = {
        "directory": str(tmp_path),
        "plan": {"config": {"linux": {"namespaces": []}}},
        "tty": False,
        "stdin": True,
        "restart": {"policy": policy, "maximum": 0},
        "log": {"driver": "json-file", "path": str(tmp_path / "log.json"), "max_size": 0, "max_files": 1},
        "own_network": False,
        "stop_signal": signal.SIGTERM,
        "cgroup": "pipe/x",
    }
    return Life(Loop(clock), cast(Embedded, spawner), argument)


def end(life: Life, process: FakeProcess, code: int) -> None:
    """The process ends; our own pid stands for its, so its descriptor never says so."""
    process.code = code
    life.loop.forget(life._pidfd)
    os.close(life._pidfd)
    life._pidfd = -1
    life._ended()


def test_an_end_is_written_before_anybody_hears_of_it(
    tmp_path: Path, spawner: FakeSpawner, clock: Clock
) -> None:
    life = life_of(tmp_path, spawner, clock)
    heard: list[tuple[bool, str, int]] = []
    life.on_exit = lambda final: heard.append(
        (final, read_state(str(tmp_path)).status, read_state(str(tmp_path)).code)
    )
    life.start(pause=False)
    assert read_state(str(tmp_path)).status == "running"
    end(life, spawner.processes[0], 3)
    assert heard == [(True, "exited", 3)]


def test_a_restart_waits_and_a_stop_in_between_ends_it(
    tmp_path: Path, spawner: FakeSpawner, clock: Clock
) -> None:
    life = life_of(tmp_path, spawner, clock, "always")
    life.start(pause=False)
    end(life, spawner.processes[0], 1)
    assert read_state(str(tmp_path)).status == "restarting"
    clock.now += 0.05
    life.loop._ring()
    assert len(spawner.processes) == 1
    clock.now += 0.06
    life.loop._ring()
    assert len(spawner.processes) == 2
    end(life, spawner.processes[1], 1)
    life.stop(signal.SIGTERM, 10)
    assert life.over
    assert read_state(str(tmp_path)).by_hand


def test_stop_sends_the_signal_and_kills_when_time_is_up(
    tmp_path: Path, spawner: FakeSpawner, clock: Clock
) -> None:
    life = life_of(tmp_path, spawner, clock, "always")
    life.start(pause=False)
    life.stop(signal.SIGTERM, 10)
    (process,) = spawner.processes
    clock.now += 9.9
    life.loop._ring()
    assert process.signals == [signal.SIGTERM]
    clock.now += 0.2
    life.loop._ring()
    assert process.signals == [signal.SIGTERM, signal.SIGKILL]
    end(life, process, 137)
    assert life.over


def test_poor_health_does_not_undo_a_stop_by_hand(tmp_path: Path, spawner: FakeSpawner, clock: Clock) -> None:
    for first, second in (("hand", "unhealthy"), ("unhealthy", "hand")):
        life = life_of(tmp_path, spawner, clock, "on-unhealthy")
        life.start(pause=False)
        life.stop(signal.SIGKILL, 0, why=first)
        life.stop(signal.SIGKILL, 0, why=second)
        end(life, spawner.processes[-1], 137)
        assert life.over


def test_what_cannot_start_again_is_over_and_says_why(
    tmp_path: Path, spawner: FakeSpawner, clock: Clock
) -> None:
    life = life_of(tmp_path, spawner, clock, "always")
    life.start(pause=False)
    spawner.failing = True
    end(life, spawner.processes[0], 1)
    clock.now += 1
    life.loop._ring()
    assert life.over
    state = read_state(str(tmp_path))
    assert (state.status, state.code) == ("exited", 125)
    assert "no such thing" in state.error


def test_timers_ring_in_order_and_cancelled_ones_do_not(clock: Clock) -> None:
    loop = Loop(clock)
    rung: list[str] = []
    loop.later(2, lambda: rung.append("second"))
    cancelled = loop.later(1.5, lambda: rung.append("never"))
    loop.later(1, lambda: rung.append("first"))
    cancelled.cancel()
    clock.now = 1.0
    loop._ring()
    assert rung == ["first"]
    clock.now = 5.0
    loop._ring()
    assert rung == ["first", "second"]
    assert loop._patience() is None
