"""The builds there were, as `recording` wrote them down: found by id, read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline.recording import DIRECTORY
from runtime.errors import Conflict, NotFound

if TYPE_CHECKING:
    from runtime.events import Event


class Builds:
    """The records of a store."""

    def __init__(self, root: str) -> None:
        self._directory = os.path.join(root, DIRECTORY)

    def ids(self) -> list[str]:
        """Newest first."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted((name for name in names if not name.startswith(".")), reverse=True)

    def facts(self, build: str) -> dict[str, Any]:
        with self._open(build) as file:
            found: dict[str, Any] = json.loads(file.readline())
        return {"id": build, **found}

    def all(self) -> Iterator[dict[str, Any]]:
        for build in self.ids():
            try:
                yield self.facts(build)
            except NotFound:
                continue  # it was the oldest, and another one ended

    def events(self, build: str) -> Iterator[Event]:
        from pipeline.event_log import read_events

        with self._open(build) as file:
            file.readline()
            yield from read_events(file)

    def find(self, text: str) -> str:
        """The id of a ref, of the start of an id, or of `^N`, the Nth before the last one; "" is the last one."""
        ids = self.ids()
        wanted = text.rpartition("/")[2]
        if not wanted or (wanted.startswith("^") and wanted[1:].isdigit()):
            place = int(wanted[1:] or 0)
            if place < len(ids):
                return ids[place]
            raise NotFound(
                f"no build {text!r}" if text else "no build yet", hint="`pipe builds ls` lists them"
            )
        found = [each for each in ids if each.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Conflict(f"{text!r} is the start of {len(found)} builds", hint="write more of it")
        raise NotFound(f"no build {text!r}", hint="`pipe builds ls` lists them")

    def remove(self, build: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, build))

    def _open(self, build: str) -> Any:
        try:
            return open(os.path.join(self._directory, build), encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"no build {build!r}") from None


def status_of(facts: Mapping[str, Any]) -> str:
    """As a list shows it."""
    return {"completed": "Completed", "canceled": "Canceled"}.get(facts["status"], "Error")
