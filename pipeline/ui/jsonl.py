"""One JSON object a line: the event's class as `event`, its fields, `data` as text (invalid UTF-8 escaped as \\udcXX)."""

from __future__ import annotations

import json
from typing import Any, TextIO

from registry_client.values import as_dict
from runtime.events import Event
from runtime.spans import Span


def event_record(event: Event) -> dict[str, Any]:
    """An event as plain JSON types; the journal of a run writes the same."""
    return {
        "event": type(event).__name__.lower(),
        **{name: _plain(content) for name, content in as_dict(event).items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Span):
        return str(value)
    return dict(value) if hasattr(value, "items") else value


class JsonLinesRenderer:
    def __init__(self, out: TextIO) -> None:
        self._out = out

    def update(self, event: Event) -> None:
        self._out.write(json.dumps(event_record(event)) + "\n")

    def tick(self, now: float) -> None:
        self._out.flush()

    def close(self) -> None:
        self._out.flush()
