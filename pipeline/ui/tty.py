"""The renderer for people at a terminal: what runs, for how long, its last lines, transfers as bars.

Finished nodes are printed once and scroll away; only what is running is redrawn, so a terminal of any height will do.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.settings import no_color
from pipeline.ui.checks import CheckSummary, warning_text
from pipeline.ui.plain import WORDS
from pipeline.ui.text import duration, plain_text, size
from runtime.events import Event, Finished, Outcome, Output, Progress, Started, Warned

TAIL = 6  # lines of output kept under a running node
REST_LIMIT = 64 << 10  # bytes kept of a line that does not end
SHOWN = 12  # running nodes drawn at once
FAILED = (Outcome.FAILED, Outcome.ERROR, Outcome.TIMEOUT)
STYLES = {
    Outcome.DONE: "green",
    Outcome.CACHED: "blue",
    Outcome.FAILED: "bold red",
    Outcome.ERROR: "bold red",
    Outcome.TIMEOUT: "bold red",
    Outcome.CANCELLED: "yellow",
    Outcome.SKIPPED: "dim",
    Outcome.WARNING: "yellow",
}


@dataclass
class _Running:
    name: str
    started: float
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    rest: bytes = b""
    items: dict[str, Progress] = field(default_factory=dict)


class TtyRenderer:
    def __init__(self, out: TextIO, console: Console | None = None, *, expand: bool = False) -> None:
        self._checks = CheckSummary(expand=expand)
        self._console = console or Console(file=out, no_color=no_color(), highlight=False)
        self._running: dict[str, _Running] = {}
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)
        self._live.start()

    def update(self, event: Event) -> None:
        match event:
            case Started():
                self._running[event.node] = _Running(event.name, event.time)
            case Output():
                self._output(event)
            case Progress():
                if node := self._running.get(event.node):
                    node.items[event.item] = event
            case Warned():
                if not self._checks.add(event):
                    self._console.print(Text(f"! {warning_text(event)}", style="yellow"))
            case Finished():
                self._finish(event)
            case _:
                pass

    def tick(self, now: float) -> None:
        self._live.update(self._picture(now), refresh=True)

    def close(self) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.stop()
        if summary := self._checks.text():
            self._console.print(Text(f"\n{summary}", style="yellow"), soft_wrap=True)

    def _output(self, event: Output) -> None:
        if node := self._running.get(event.node):
            *lines, rest = (node.rest + event.data).split(b"\n")
            node.rest = rest[-REST_LIMIT:]
            node.tail.extend(plain_text(line) for line in lines)

    def _finish(self, event: Finished) -> None:
        node = self._running.pop(event.node, None) or _Running(event.node, event.time)
        if event.outcome in FAILED:
            for line in node.tail:
                self._console.print(Text(f"  │ {line}", style="dim"))
        self._console.print(_row(node.name, event, event.time - node.started))
        self.tick(time.time())

    def _picture(self, now: float) -> RenderableType:
        rows: list[RenderableType] = []
        shown = list(self._running.values())[-SHOWN:]
        if hidden := len(self._running) - len(shown):
            rows.append(Text(f"  … and {hidden} more", style="dim"))
        for node in shown:
            rows.append(Text(f"▸ {node.name}  {duration(max(0.0, now - node.started))}", style="cyan"))
            rows.extend(
                _bar(item) for item in node.items.values() if item.current < item.total or not item.total
            )
            rows.extend(
                Text(f"  │ {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in node.tail
            )
        return Group(*rows)


def _row(name: str, event: Finished, seconds: float) -> Text:
    mark = "✗" if event.outcome in FAILED else "!" if event.outcome is Outcome.WARNING else "✓"
    note = event.error or event.detail
    took = duration(seconds) if event.outcome is Outcome.DONE else WORDS[event.outcome]
    return Text.assemble(
        (f"{mark} ", STYLES[event.outcome]),
        name,
        "  ",
        (took, STYLES[event.outcome]),
        f"  {note}" if note else "",
    )


def _bar(item: Progress) -> Table:
    row = Table.grid(padding=(0, 1))
    amount = size(item.current) if item.unit == "B" else str(item.current)
    total = (f" / {size(item.total)}" if item.unit == "B" else f" / {item.total}") if item.total else ""
    row.add_row(
        "  │",
        Text(item.item, no_wrap=True),
        ProgressBar(total=item.total or None, completed=item.current, width=30),
        amount + total,
    )
    return row
