"""Wait for descriptors and times, on one thread. Handlers are called with the poll(2) events; they never block."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Timer:
    """Something to be done later; `cancel` before it is due, again is no error."""

    __slots__ = ("action", "due")

    def __init__(self, due: float, action: Callable[[], None]) -> None:
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Loop:
    """Runs until `stop`. The clock is monotonic and handed in, so that tests need not wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._running = True

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` when `fd` is ready; again with other events changes what is watched for."""
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` after so many seconds."""
        timer = Timer(self.clock() + seconds, action)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            self.once()

    def once(self) -> None:
        """Wait for the next thing and do all that is ready then."""
        for fd, events in self._poll.poll(self._patience()):
            handler = self._handlers.get(fd)  # an earlier one may have taken this one away
            if handler is not None:
                handler(events)
        self._ring()

    def _patience(self) -> float | None:
        """Milliseconds until the next timer."""
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        # Rounded up: poll(2) counts whole milliseconds, and too early means a turn for nothing.
        return max(0.0, (self._timers[0].due - self.clock()) * 1000 + 1)

    def _ring(self) -> None:
        now = self.clock()
        while self._timers and (self._timers[0].action is None or self._timers[0].due <= now):
            timer = heapq.heappop(self._timers)
            if timer.action is not None:
                action, timer.action = timer.action, None
                action()
