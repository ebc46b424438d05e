"""Stopping work from outside.

A `Cancel` is handed down to whatever may take long. Work stops by ending the thing it waits for (kill the container,
close the socket), registered with `on_cancel`, and by `check()` between chunks. Clean-up ignores the token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, cast

from runtime.errors import Cancelled


class Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


class Cancel:
    """A token that is set at most once, from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next = 0
        self.reason = ""

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self, reason: str = "cancelled") -> None:
        """Set the token and run what was registered, each once, in order of registration."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise `Cancelled` if the token is set."""
        if self._event.is_set():
            raise Cancelled(self.reason or "cancelled")

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past a cancellation; True when cancelled."""
        return self._event.wait(seconds)

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, a cancellation calls `callback` (at once if it already happened)."""
        with self._lock:
            if not self._event.is_set():
                key, self._next = self._next, self._next + 1
                self._callbacks[key] = callback
            else:
                key = -1
        if key < 0:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)


class _Stoppable:
    def __init__(self, out: Sink, cancel: Cancel) -> None:
        self._out, self._cancel = out, cancel

    def write(self, data: bytes) -> int:
        self._cancel.check()
        return cast(int, self._out.write(data))


def stoppable(out: Sink, cancel: Cancel | None) -> BinaryIO:
    """`out` as something to write to, piece by piece, until the token is set."""
    return cast(BinaryIO, out if cancel is None else _Stoppable(out, cancel))
