"""The renderer for logs and CI: every node gets a number, every line says which node it belongs to.

    #3 [app 2/4] RUN make
    #3 0.412 cc -o main main.c
    #3 DONE 1.9s

Lines of one node are whole; an output without a newline is held back until the rest comes or the node ends, or becomes long.
"""

from __future__ import annotations

from typing import TextIO

from pipeline.ui.checks import CheckSummary, warning_text
from pipeline.ui.text import plain_text, size
from runtime.events import Event, Finished, Outcome, Output, Progress, Started, Warned

WORDS = {
    Outcome.DONE: "DONE",
    Outcome.CACHED: "CACHED",
    Outcome.FAILED: "FAILED",
    Outcome.ERROR: "ERROR",
    Outcome.TIMEOUT: "TIMEOUT",
    Outcome.CANCELLED: "CANCELLED",
    Outcome.SKIPPED: "SKIPPED",
    Outcome.WARNING: "FAILED (allowed)",
}


LINE_LIMIT = 64 << 10  # bytes: a longer one is broken, lest it is put together over and over


class _Node:
    def __init__(self, number: int, started: float) -> None:
        self.number, self.started = number, started
        self.rest: dict[str, bytes] = {}
        self.items: dict[str, int] = {}  # item -> eighths already told


class PlainRenderer:
    def __init__(self, out: TextIO, *, expand: bool = False) -> None:
        self._out = out
        self._checks = CheckSummary(expand=expand)
        self._nodes: dict[str, _Node] = {}

    def update(self, event: Event) -> None:
        match event:
            case Started():
                self._start(event)
            case Output():
                self._output(event)
            case Progress():
                self._progress(event)
            case Warned():
                self._checks.add(event)
                self._line(self._node(event.node, event.time), f"WARN: {warning_text(event)}")
            case Finished():
                self._finish(event)
            case _:
                pass

    def tick(self, now: float) -> None:
        self._out.flush()

    def close(self) -> None:
        if summary := self._checks.text():
            self._out.write(f"\n{summary}\n")
        self._out.flush()

    def _node(self, name: str, time: float) -> _Node:
        if name not in self._nodes:
            self._nodes[name] = _Node(len(self._nodes) + 1, time)
        return self._nodes[name]

    def _start(self, event: Started) -> None:
        node = self._node(event.node, event.time)
        node.started = event.time
        self._line(node, event.name)

    def _output(self, event: Output) -> None:
        node = self._node(event.node, event.time)
        *lines, rest = (node.rest.get(event.stream, b"") + event.data).split(b"\n")
        if len(rest) > LINE_LIMIT:
            lines, rest = [*lines, rest], b""
        node.rest[event.stream] = rest
        for line in lines:
            self._line(node, f"{event.time - node.started:.3f} {plain_text(line)}")

    def _progress(self, event: Progress) -> None:
        """A line when an item begins and when it is whole: logs are not a place for moving bars."""
        node = self._node(event.node, event.time)
        whole = bool(event.total) and event.current >= event.total
        told = node.items.get(event.item)
        if told is None or (whole and told == 0):
            node.items[event.item] = int(whole)
            total = size(event.total) if event.unit == "B" else str(event.total)
            self._line(node, f"{event.item} {total} {'done' if whole else '…'}".replace(" 0 B …", " …"))

    def _finish(self, event: Finished) -> None:
        node = self._node(event.node, event.time)
        for rest in node.rest.values():
            if rest:
                self._line(node, f"{event.time - node.started:.3f} {plain_text(rest)}")
        node.rest.clear()
        took = f" {event.time - node.started:.1f}s" if event.outcome is Outcome.DONE else ""
        note = f": {event.error}" if event.error else f" {event.detail}" if event.detail else ""
        self._line(node, f"{WORDS[event.outcome]}{took}{note}")

    def _line(self, node: _Node, text: str) -> None:
        self._out.write(f"#{node.number} {text}\n")
