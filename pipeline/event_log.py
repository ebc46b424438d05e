"""The events of a run as lines of JSON in its `events.jsonl`: written one by one as they come, read back as they were.

A line that has no end is being written, or its writer was killed: readers stop before it, the next writer takes it away.
Output of one node is kept up to a limit; beyond it, the middle is left out and said to be.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from runtime.events import Changed, Emit, Event, Finished, Outcome, Output, Progress, Started, Warned

FILE_NAME = "events.jsonl"
NODE_LIMIT = 32 << 20  # bytes of output kept of one node
_TAIL = 256 << 10


def read_events(file: TextIO) -> Iterator[Event]:
    while True:
        at = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(at)  # half a line: its writer is at it, or was killed
            return
        event = event_from_json(json.loads(line))
        if event is not None:
            yield event


class EventLog:
    """An `Emit` that writes a run's events.jsonl and hands each event on. A context manager."""

    def __init__(self, directory: str, emit: Emit) -> None:
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, FILE_NAME)
        _drop_half_line(path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by close()
        self._emit = emit
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._tails: dict[str, list[Output]] = {}

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Progress):
            with self._lock:
                self._write(event)
        self._emit(event)

    def _write(self, event: Event) -> None:
        if self._file.closed:
            return
        if isinstance(event, Output) and not self._fits(event):
            return
        if isinstance(event, Finished):
            self._end_of(event.node)
        self._line(event)
        self._file.flush()

    def _fits(self, event: Output) -> bool:
        """False once the node has had its share: then only its last output is kept, in memory, until it ends."""
        size = self._sizes[event.node] = self._sizes.get(event.node, 0) + len(event.data)
        if size <= NODE_LIMIT:
            return True
        tail = self._tails.setdefault(event.node, [])
        tail.append(event)
        while sum(len(output.data) for output in tail) > _TAIL and len(tail) > 1:
            tail.pop(0)
        return False

    def _end_of(self, node: str) -> None:
        tail = self._tails.pop(node, [])
        left_out = self._sizes.pop(node, 0) - NODE_LIMIT - sum(len(output.data) for output in tail)
        if tail and left_out > 0:
            self._line(Warned(node=node, message=f"{left_out} bytes of output were left out of the log here"))
        for output in tail:
            self._line(output)

    def _line(self, event: Event) -> None:
        self._file.write(json.dumps(event_to_json(event), ensure_ascii=False) + "\n")

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _drop_half_line(path: str) -> None:
    """A killed writer may have left half a line at the end."""
    if not os.path.exists(path):
        return
    with open(path, "rb+") as file:
        data_end = file.seek(0, os.SEEK_END)
        file.seek(max(0, data_end - (1 << 20)))
        base = file.tell()
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(base + tail.rfind(b"\n") + 1)


def event_to_json(event: Event) -> dict[str, Any]:
    """One line of the journal."""
    record: dict[str, Any] = {"event": type(event).__name__.lower(), "time": round(event.time, 6)}
    match event:
        case Started():
            record.update(node=event.node, name=event.name, parent=event.parent)
        case Output():
            record.update(node=event.node, stream=event.stream, **_data(event.data))
        case Warned():
            record.update(node=event.node, message=event.message, place=str(event.span) if event.span else "")
            if event.rule:
                record.update(rule=event.rule, url=event.url, detail=event.detail)
        case Progress():
            record.update(
                node=event.node, item=event.item, current=event.current, total=event.total, unit=event.unit
            )
        case Finished():
            record.update(node=event.node, outcome=str(event.outcome), error=event.error, detail=event.detail)
        case Changed():
            record.update(
                kind=event.kind, id=event.id, action=event.action, attributes=dict(event.attributes)
            )
    return record


def _data(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        import base64

        return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes(record: dict[str, Any]) -> bytes:
    if "text" in record:
        return str(record["text"]).encode()
    import base64

    return base64.b64decode(record["base64"])


def event_from_json(record: dict[str, Any]) -> Event | None:
    """The event of a line; None for one this version does not know."""
    when = float(record["time"])
    match record["event"]:
        case "started":
            return Started(node=record["node"], name=record["name"], parent=record["parent"], time=when)
        case "output":
            return Output(node=record["node"], stream=record["stream"], data=_bytes(record), time=when)
        case "warned":
            place = f"{record['place']}: " if record["place"] else ""
            about = {name: record.get(name, "") for name in ("rule", "url", "detail")}
            return Warned(node=record["node"], message=place + record["message"], time=when, **about)
        case "finished":
            return Finished(
                node=record["node"],
                outcome=Outcome(record["outcome"]),
                error=record["error"],
                detail=record["detail"],
                time=when,
            )
        case "changed":
            return Changed(
                kind=record["kind"],
                id=record["id"],
                action=record["action"],
                attributes=record["attributes"],
                time=when,
            )
        case _:
            return None
