"""From producers to one renderer: a queue and one thread.

`emit` only puts into the queue, so it never blocks and may be called from any thread. The thread ends when the stream
is closed, after everything emitted before was shown. A renderer that fails must not stop the work: its stream falls
silent and the fault is raised when the stream is closed, unless it is only that the progress can be told to nobody.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TextIO

from runtime.errors import HostFault
from runtime.events import Emit, Event

TICK = 0.1  # seconds between two redraws


class Renderer(Protocol):
    def update(self, event: Event) -> None: ...

    def tick(self, now: float) -> None: ...

    def close(self) -> None: ...


def choose_renderer(kind: str, out: TextIO, *, expand: bool = False) -> Renderer:
    """The renderer of a kind; "auto" is tty on a terminal, else plain. `expand`: all that build checks have to say."""
    if kind == "auto":
        kind = "tty" if out.isatty() else "plain"
    if kind == "tty":
        from pipeline.ui.tty import TtyRenderer

        return TtyRenderer(out, expand=expand)
    if kind == "jsonl":
        from pipeline.ui.jsonl import JsonLinesRenderer

        return JsonLinesRenderer(out)
    if kind == "rawjson":
        from pipeline.ui.rawjson import RawJsonRenderer

        return RawJsonRenderer(out)
    if kind == "quiet":
        from pipeline.ui.quiet import QuietRenderer

        return QuietRenderer()
    from pipeline.ui.plain import PlainRenderer

    return PlainRenderer(out, expand=expand)


class Stream:
    """`matters`: whoever asked for this output has to know that it is not whole, as when its disk is full."""

    def __init__(self, renderer: Renderer, *, matters: bool = True) -> None:
        import queue
        import threading

        self._renderer, self._matters = renderer, matters
        self._nothing = queue.Empty
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._consume, name="renderer", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        self._queue.put(event)

    def close(self) -> None:
        """Show what was emitted so far and end; raises what made the renderer fail, except a reader that went away."""
        self._queue.put(None)
        self._thread.join()
        fault = self._fault
        if isinstance(fault, OSError) and (not self._matters or isinstance(fault, BrokenPipeError)):
            return
        if isinstance(fault, OSError):
            raise HostFault(f"cannot write the output: {fault.strerror}") from fault
        if fault is not None:
            raise fault

    def _consume(self) -> None:
        try:
            self._render()
        except Exception as error:  # noqa: BLE001  kept for close(): the work goes on without a screen
            self._fault = error

    def _render(self) -> None:
        try:
            while True:
                try:
                    event = self._queue.get(timeout=TICK)
                except self._nothing:
                    self._renderer.tick(time.time())
                    continue
                if event is None:
                    return
                self._renderer.update(event)
        finally:
            self._renderer.close()


def _place_of(kind: str) -> TextIO:
    """Standard error; JSON lines go to standard output."""
    return sys.stdout if kind == "jsonl" else sys.stderr


def show(events: Iterable[Event], kind: str, *, expand: bool = False) -> None:
    """What has happened already, at once: no queue, no thread."""
    renderer = choose_renderer(kind, _place_of(kind), expand=expand)
    with suppress(BrokenPipeError):  # as with a stream: whoever read it went away
        try:
            for event in events:
                renderer.update(event)
        finally:
            renderer.close()


@contextmanager
def open_stream(kind: str, out: TextIO | None = None, *, expand: bool = False) -> Iterator[Emit]:
    """An `Emit` whose events are shown on `out`."""
    place = out or _place_of(kind)
    stream = Stream(choose_renderer(kind, place, expand=expand), matters=place is not sys.stderr)
    try:
        yield stream.emit
    finally:
        stream.close()
