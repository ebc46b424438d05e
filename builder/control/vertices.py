"""What happens in a build, as a client of BuildKit reads it: vertices, their progress, logs and warnings.

A node is a vertex, its digest made of its name and the build's: clients show several builds at once. Whatever is emitted is kept until a client asks for it; the first one that
asks gets all, so that nothing is missed between the request and the question, and nothing is held twice.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator

from builder.control.messages.common import Range, SourceInfo, Timestamp
from builder.control.messages.control import StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning
from runtime.cancel import Cancel
from runtime.events import Changed, Event, Finished, Outcome, Output, Progress, Started, Warned

_STREAMS = {"stdout": 1, "stderr": 2}
_FINE = (Outcome.DONE, Outcome.CACHED, Outcome.SKIPPED)
_TOGETHER = 64  # of what waits, in one message
_PAUSE = 0.1  # seconds between two steps of a progress
_MOST = 64 << 20  # bytes of output nobody has taken yet; what comes then is dropped


class Told:
    """The events of one build. `emit` never blocks; `follow` ends when the build is over."""

    def __init__(self, ref: str, root: str) -> None:
        """`ref` is the build's name; `root` its own node: what is told of that is about its Dockerfile."""
        self._ref, self._root, self.dockerfile = ref, root, f"{root}/dockerfile"
        self._changed = threading.Condition()
        self._waiting: deque[StatusResponse] = deque()
        self._held = 0  # bytes of output among them
        self._over = False
        self._vertexes: dict[str, Vertex] = {}
        self._statuses: dict[tuple[str, str], VertexStatus] = {}
        self.warnings = 0
        self._told_at: dict[tuple[str, str], float] = {}

    def emit(self, event: Event) -> None:
        if isinstance(event, Changed):
            return
        with self._changed:
            if event.node == self._root and not isinstance(event, Warned):
                return  # a build is no vertex
            size = len(event.data) if isinstance(event, Output) else 0
            if size and self._held + size > _MOST:
                return
            self._held += size
            response = self._response(event)
            if not isinstance(event, Progress) or self._is_due(event):
                self._waiting.append(response)
                self._changed.notify_all()

    def _is_due(self, event: Progress) -> bool:
        """Not every step of a progress is told. The last one is, with the end of its node."""
        key = event.node, event.item
        if event.total and event.current >= event.total:
            return True
        due = event.time - self._told_at.get(key, 0.0) >= _PAUSE
        if due:
            self._told_at[key] = event.time
        return due

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def follow(self, cancel: Cancel) -> Iterator[StatusResponse]:
        """What was told and is told, until the end or until nobody listens any more."""
        with cancel.on_cancel(self._wake):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._waiting) or self._over or cancel.cancelled)
                    if cancel.cancelled or not self._waiting:
                        return
                    found = self._taken()
                yield found

    def _taken(self) -> StatusResponse:
        """Some of what waits, as one message."""
        found = self._waiting.popleft()
        for _ in range(min(len(self._waiting), _TOGETHER)):
            more = self._waiting.popleft()
            found.vertexes += more.vertexes
            found.statuses += more.statuses
            found.logs += more.logs
            found.warnings += more.warnings
        self._held -= sum(len(log.data) for log in found.logs)
        return found

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def count(self, *, cached: bool = False, completed: bool = False) -> int:
        """How many vertices there are, or of these those that are so."""
        with self._changed:
            return sum(
                (each.cached or not cached) and (each.completed is not None or not completed)
                for each in self._vertexes.values()
            )

    def _digest(self, node: str) -> str:
        name = f"{self._ref}/{node}".encode("utf-8", "surrogateescape")
        return "sha256:" + hashlib.sha256(name).hexdigest()

    # --- events as messages -------------------------------------------------------------------------------------------

    def _response(self, event: Started | Finished | Output | Progress | Warned) -> StatusResponse:
        match event:
            case Started():
                vertex = Vertex(self._digest(event.node), name=event.name, started=Timestamp.of(event.time))
                self._vertexes[event.node] = vertex
                return StatusResponse(vertexes=[_copy(vertex)])
            case Finished():
                return self._finished(event)
            case Output():
                stream = _STREAMS.get(event.stream, 1)
                log = VertexLog(self._digest(event.node), Timestamp.of(event.time), stream, event.data)
                return StatusResponse(logs=[log])
            case Progress():
                return StatusResponse(statuses=[self._progress(event)])
            case Warned():
                return StatusResponse(warnings=[self._warning(event)])

    def _finished(self, event: Finished) -> StatusResponse:
        now = Timestamp.of(event.time)
        vertex = self._vertexes.setdefault(
            event.node, Vertex(self._digest(event.node), name=event.node, started=now)
        )
        vertex.completed = now
        vertex.cached = event.outcome is Outcome.CACHED
        if event.outcome not in _FINE:
            cancelled = event.outcome is Outcome.CANCELLED
            vertex.error = "context canceled" if cancelled else event.error or str(event.outcome)
        ended = []
        for (node, _), status in self._statuses.items():
            if node == event.node and status.completed is None:
                status.completed = now
                ended.append(status)
        return StatusResponse(vertexes=[_copy(vertex)], statuses=ended)

    def _progress(self, event: Progress) -> VertexStatus:
        now = Timestamp.of(event.time)
        first = self._statuses.get((event.node, event.item))
        counted = event.unit == "B"  # clients take every number for bytes
        status = VertexStatus(
            event.item,
            self._digest(event.node),
            event.item,
            event.current if counted else 0,
            event.total if counted else 0,
            timestamp=now,
            started=first.started if first else now,
            completed=now if event.total and event.current >= event.total else None,
        )
        self._statuses[event.node, event.item] = status
        return status

    def _warning(self, event: Warned) -> VertexWarning:
        self.warnings += 1
        node = event.node if event.node in self._vertexes else self.dockerfile
        line = f" (line {event.span.line})" if event.rule and event.span else ""
        name = f"{event.rule}: " if event.rule else ""
        return VertexWarning(
            self._digest(node),
            level=1,
            short=f"{name}{event.message}{line}".encode("utf-8", "replace"),
            detail=[event.detail.encode("utf-8", "replace")] if event.detail else [],
            url=event.url,
            info=SourceInfo.of(event.span) if event.span else None,
            ranges=[Range.of(event.span)] if event.span else [],
        )


def _copy(vertex: Vertex) -> Vertex:
    """As it is now: it is told again when it changes."""
    return Vertex(
        vertex.digest,
        vertex.inputs,
        vertex.name,
        vertex.cached,
        vertex.started,
        vertex.completed,
        vertex.error,
    )
