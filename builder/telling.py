"""What the solver does, as events: who began, who ended, and how."""

from __future__ import annotations

from collections.abc import Callable

from builder.graph import ImageSource, InlineSource, LocalSource, Scratch, Vertex
from builder.state import RootState, State
from builder.trees import ImportFailed
from runtime.errors import Cancelled, StepFailed
from runtime.events import Emit, Finished, Outcome, Started

_QUIET = (Scratch, LocalSource, InlineSource)  # sources nobody needs to read about


class Teller:
    """The `Watcher` of a solver; events are children of `parent`."""

    def __init__(self, emit: Emit, parent: str, node_of: Callable[[Vertex], str]) -> None:
        self._emit, self._parent, self._node_of = emit, parent, node_of

    def _is_told(self, vertex: Vertex) -> bool:
        return not isinstance(vertex.operation, _QUIET)

    def started(self, vertex: Vertex) -> None:
        if self._is_told(vertex):
            self._emit(Started(node=self._node_of(vertex), name=vertex.label, parent=self._parent))

    def finished(self, vertex: Vertex, state: State) -> None:
        if not self._is_told(vertex):
            return
        cached = (
            isinstance(state, RootState) and state.cached and not isinstance(vertex.operation, ImageSource)
        )
        outcome = Outcome.CACHED if cached else Outcome.DONE
        self._emit(Finished(node=self._node_of(vertex), outcome=outcome))

    def failed(self, vertex: Vertex, error: BaseException) -> None:
        if not self._is_told(vertex):
            return
        outcome = Outcome.ERROR
        if isinstance(error, StepFailed):
            outcome = Outcome.FAILED
        elif isinstance(error, (Cancelled, ImportFailed)):
            outcome = Outcome.CANCELLED
        self._emit(Finished(node=self._node_of(vertex), outcome=outcome, error=str(error)))
