"""Decide which vertex to run next.

The deciding thread owns all scheduling state and waits on one queue of completions; vertices run in the pool it was
given. Equal vertices run once. A vertex starts the moment its inputs are there; when one fails, what runs is told to
stop, nothing new starts, and the first error is the answer. It never executes anything itself and never reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from builder.graph import Vertex
from builder.pools import Pool
from registry_client.oci.digest import Digest
from runtime.cancel import Cancel
from runtime.errors import Cancelled

State = TypeVar("State")
Told = TypeVar("Told", contravariant=True)


class Watcher(Protocol[Told]):
    """Told by the deciding thread's pool when a vertex begins and ends."""

    def started(self, vertex: Vertex) -> None: ...

    def finished(self, vertex: Vertex, state: Told) -> None: ...

    def failed(self, vertex: Vertex, error: BaseException) -> None: ...


Run = Callable[[Vertex, Sequence[State]], State]


class Solver(Generic[State]):
    """Solves one graph."""

    def __init__(
        self, run: Run[State], pool: Pool, cancel: Cancel, watcher: Watcher[State] | None = None
    ) -> None:
        self._run, self._pool, self._cancel, self._watcher = run, pool, cancel, watcher
        import queue

        self._done: queue.SimpleQueue[tuple[Vertex, State | None, BaseException | None]] = queue.SimpleQueue()
        self.states: dict[Digest, State] = {}

    def solve(self, targets: Iterable[Vertex]) -> list[State]:
        """The states of `targets`, in their order."""
        wanted = list(targets)
        order = reachable(wanted)
        missing = {v.digest: len({i.digest for i in v.inputs}) for v in order}
        users: dict[Digest, list[Vertex]] = {v.digest: [] for v in order}
        for vertex in order:
            for digest in {i.digest for i in vertex.inputs}:
                users[digest].append(vertex)
        running = 0
        first_error: BaseException | None = None
        ready = [vertex for vertex in order if not missing[vertex.digest]]
        while ready or running:
            if first_error is None:
                for vertex in ready:
                    self._pool.submit(self._job, vertex, [self.states[i.digest] for i in vertex.inputs])
                    running += 1
            ready = []
            if not running:
                break
            vertex, state, error = self._done.get()
            running -= 1
            if error is not None:
                # What the cancellation below brings about is not the reason.
                if first_error is None or (
                    isinstance(first_error, Cancelled) and not isinstance(error, Cancelled)
                ):
                    first_error = error
                self._cancel.cancel("another step failed")
                continue
            self.states[vertex.digest] = state  # type: ignore[assignment]
            for user in users[vertex.digest]:
                missing[user.digest] -= 1
                if not missing[user.digest]:
                    ready.append(user)
        if first_error is not None:
            raise first_error
        return [self.states[vertex.digest] for vertex in wanted]

    def _job(self, vertex: Vertex, inputs: Sequence[State]) -> None:
        try:
            self._cancel.check()
            if self._watcher:
                self._watcher.started(vertex)
            state = self._run(vertex, inputs)
            if self._watcher:
                self._watcher.finished(vertex, state)
        except BaseException as error:  # noqa: BLE001  handed to the deciding thread, which raises it
            if self._watcher:
                self._watcher.failed(vertex, error)
            self._done.put((vertex, None, error))
        else:
            self._done.put((vertex, state, None))


def reachable(targets: Iterable[Vertex]) -> list[Vertex]:
    """All vertices below `targets`, each once, inputs before users."""
    order: dict[Digest, Vertex] = {}
    stack = [(vertex, False) for vertex in reversed(list(targets))]
    while stack:
        vertex, expanded = stack.pop()
        if vertex.digest in order:
            continue
        if expanded:
            order[vertex.digest] = vertex
            continue
        stack.append((vertex, True))
        stack.extend((each, False) for each in reversed(vertex.inputs))
    return list(order.values())
