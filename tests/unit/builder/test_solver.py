"""The deciding thread: order, sharing, errors, cancellation; with operations that only count."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from builder.graph import Exec, Scratch, Vertex
from builder.pools import Pool
from builder.solver import Solver, reachable
from runtime.cancel import Cancel
from runtime.errors import Cancelled, StepFailed


def step(name: str, *inputs: Vertex) -> Vertex:
    return Vertex(operation=Exec(argv=(name,)), inputs=inputs or (Vertex(operation=Scratch()),), label=name)


class Counting:
    """Runs vertices by noting them; some fail, some wait for an event."""

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.names: list[str] = []
        self.failing = failing
        self.gates: dict[str, threading.Event] = {}
        self.lock = threading.Lock()

    def run(self, vertex: Vertex, inputs: Sequence[str]) -> str:
        with self.lock:
            self.names.append(vertex.label)
        if gate := self.gates.get(vertex.label):
            assert gate.wait(60)
        if vertex.label in self.failing:
            raise StepFailed(vertex.label)
        return f"{vertex.label}({','.join(inputs)})"


def solve(counting: Counting, *targets: Vertex, cancel: Cancel | None = None) -> list[str]:
    with Pool("test", 4) as pool:
        return Solver(counting.run, pool, cancel or Cancel()).solve(targets)


def test_inputs_come_before_users_and_shared_ones_run_once() -> None:
    base = step("base")
    left, right = step("left", base), step("right", base)
    counting = Counting()
    assert solve(counting, step("top", left, right)) == ["top(left(base(())),right(base(())))"]
    assert sorted(counting.names) == ["", "base", "left", "right", "top"]
    assert counting.names.index("base") < counting.names.index("left")


def test_equal_definitions_run_once_whatever_they_are_called() -> None:
    one = Vertex(operation=Exec(argv=("make",)), label="one")
    two = Vertex(operation=Exec(argv=("make",)), label="two")
    counting = Counting()
    solve(counting, step("top", one, two))
    assert len([name for name in counting.names if name in ("one", "two")]) == 1


def test_independent_steps_run_at_the_same_time() -> None:
    counting = Counting()
    both = threading.Barrier(2, timeout=60)
    original = counting.run

    def run(vertex: Vertex, inputs: Sequence[str]) -> str:
        if vertex.label in ("left", "right"):
            both.wait()
        return original(vertex, inputs)

    with Pool("test", 4) as pool:
        Solver(run, pool, Cancel()).solve([step("top", step("left"), step("right"))])


def test_the_first_error_is_the_answer_and_nothing_new_starts() -> None:
    counting = Counting(failing=["left"])
    with pytest.raises(StepFailed, match="left"):
        solve(counting, step("top", step("after", step("left")), step("right")))
    assert "top" not in counting.names
    assert "after" not in counting.names


def test_a_failure_tells_the_others_to_stop() -> None:
    cancel = Cancel()
    counting = Counting(failing=["left"])
    gate = counting.gates["right"] = threading.Event()
    with cancel.on_cancel(gate.set), pytest.raises(StepFailed, match="left"):
        solve(counting, step("top", step("left"), step("right")), cancel=cancel)
    assert gate.is_set()


def test_a_cancelled_build_starts_nothing() -> None:
    cancel = Cancel()
    cancel.cancel("enough")
    counting = Counting()
    with pytest.raises(Cancelled):
        solve(counting, step("top"), cancel=cancel)
    assert counting.names == []


def test_a_graph_of_two_hundred_steps_is_no_recursion() -> None:
    vertex = step("0")
    for number in range(1, 3000):
        vertex = step(str(number), vertex)
    assert len(reachable([vertex])) == 3001
