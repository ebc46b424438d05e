"""What happened to images, containers, networks and volumes lately, and who waits to be told (`/events`)."""

from __future__ import annotations

import threading
from collections import deque

from runtime.events import Changed

_KEPT = 256  # as many as docker keeps


class Happened:
    """Safe to use from threads. It knows what went through this daemon, not what other commands did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Changed] = deque(maxlen=_KEPT)
        self._listeners: list[Listener] = []

    def note(self, event: Changed) -> None:
        with self._lock:
            self._kept.append(event)
            for listener in self._listeners:
                listener.put(event)

    def listen(self) -> tuple[tuple[Changed, ...], Listener]:
        """What is kept, and one who hears all that follows until he is forgotten."""
        listener = Listener()
        with self._lock:
            self._listeners.append(listener)
            return tuple(self._kept), listener

    def forget(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.remove(listener)

    @property
    def listeners(self) -> int:
        return len(self._listeners)


class Listener:
    """Events in order. `close` ends it, from any thread."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._events: deque[Changed | None] = deque()

    def put(self, event: Changed | None) -> None:
        with self._ready:
            self._events.append(event)
            self._ready.notify()

    def close(self) -> None:
        self.put(None)

    def next(self, timeout: float | None = None) -> Changed | None:
        """The next event; None when it was closed or none came in time."""
        with self._ready:
            self._ready.wait_for(lambda: bool(self._events), timeout)
            return self._events.popleft() if self._events else None
