"""`--progress=rawjson`: the events as buildx prints them, one status object of BuildKit's protocol a line (FEATURES B-19).

A node is a vertex whose digest is made of its name; a vertex is told again with all that is known whenever it changes.
Output is base64, as bytes are in that protocol's JSON. What changed in the store has no place in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any, TextIO

from runtime.events import Event, Finished, Outcome, Output, Progress, Started, Warned

_STREAMS = {"stdout": 1, "stderr": 2}
_FINE = (Outcome.DONE, Outcome.CACHED, Outcome.SKIPPED)


class RawJsonRenderer:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._vertexes: dict[str, dict[str, Any]] = {}

    def update(self, event: Event) -> None:
        match event:
            case Started() | Finished():
                self._say("vertexes", self._vertex(event))
            case Output():
                self._say(
                    "logs",
                    {
                        "vertex": _digest(event.node),
                        "stream": _STREAMS.get(event.stream, 1),
                        "data": _encoded(event.data),
                        "timestamp": _time(event.time),
                    },
                )
            case Progress():
                self._say(
                    "statuses",
                    {
                        "id": event.item,
                        "vertex": _digest(event.node),
                        "current": event.current,
                        **({"total": event.total} if event.total else {}),
                        "timestamp": _time(event.time),
                    },
                )
            case Warned():
                self._say("warnings", _warning(event))

    def _vertex(self, event: Started | Finished) -> dict[str, Any]:
        vertex = self._vertexes.setdefault(event.node, {"digest": _digest(event.node), "name": event.node})
        if isinstance(event, Started):
            vertex |= {"name": event.name, "started": _time(event.time)}
            return vertex
        vertex["completed"] = _time(event.time)
        if event.outcome is Outcome.CACHED:
            vertex["cached"] = True
        if event.outcome not in _FINE:
            vertex["error"] = event.error or str(event.outcome)
        return vertex

    def _say(self, kind: str, record: dict[str, Any]) -> None:
        self._out.write(json.dumps({kind: [record]}) + "\n")

    def tick(self, now: float) -> None:
        self._out.flush()

    def close(self) -> None:
        self._out.flush()


def _warning(event: Warned) -> dict[str, Any]:
    record: dict[str, Any] = {"vertex": _digest(event.node), "level": 1, "short": _text(event.message)}
    if event.detail:
        record["detail"] = [_text(event.detail)]
    if event.url:
        record["url"] = event.url
    if event.span is not None:
        record["range"] = [{"start": {"line": event.span.line}, "end": {"line": event.span.last_line}}]
    return record


def _digest(node: str) -> str:
    return "sha256:" + hashlib.sha256(node.encode("utf-8", "surrogateescape")).hexdigest()


def _text(text: str) -> str:
    return _encoded(text.encode("utf-8", "surrogateescape"))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _time(seconds: float) -> str:
    """RFC 3339 in UTC."""
    whole = int(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 10**9):09d}Z"
