"""Build caches in directories of the client (`type=local`): fetched before the build, sent after it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from builder.control.layouts import ClientLayout
from builder.control.messages.common import CacheEntry
from builder.control.sessions import Session
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.errors import InvalidInput
from runtime.events import Emit, Event, Started

_LOCAL = "local"


class ClientCaches:
    """Those of one build. The client names its directory by path, and updates the index there by what it is told."""

    def __init__(self, session: Session, scratch: str, cancel: Cancel) -> None:
        self._session, self._scratch, self._cancel = session, scratch, cancel
        self._written: list[tuple[str, str]] = []  # the client's directory, and ours
        self._names: dict[str, str] = {}  # ours, and the client's

    def fetched(self, entries: Iterable[CacheEntry]) -> list[CacheEntry]:
        """With the client's directories replaced by ours."""
        return [self._fetch(entry) if entry.type == _LOCAL else entry for entry in entries]

    def _fetch(self, entry: CacheEntry) -> CacheEntry:
        place, digest = entry.attrs.get("src", ""), entry.attrs.get("digest", "")
        if not digest:
            raise InvalidInput(f"cache-from: the client does not say which cache of {place} it means")
        ours = os.path.join(self._scratch, f"cache-{digest.replace(':', '-')}")
        if not os.path.isdir(ours):
            self._layout(place).fetch(digest, ours)
        self._names[ours] = place
        return CacheEntry(_LOCAL, {"src": ours, "digest": digest})

    def placed(self, entries: Iterable[CacheEntry]) -> list[CacheEntry]:
        return [self._place(entry) if entry.type == _LOCAL else entry for entry in entries]

    def _place(self, entry: CacheEntry) -> CacheEntry:
        ours = os.path.join(self._scratch, f"cache-to-{len(self._written)}")
        self._written.append((entry.attrs.get("dest", ""), ours))
        self._names[ours] = entry.attrs.get("dest", "")
        # Emptying the directory is the client's to do.
        kept = {name: value for name, value in entry.attrs.items() if name != "reset"}
        return CacheEntry(_LOCAL, {**kept, "dest": ours})

    def sent(self) -> dict[str, str]:
        """Send what the build wrote; what the client has to know of it."""
        found = {}
        for place, ours in self._written:
            if os.path.isdir(ours):  # else it could not be written, which the entry says is no error
                entry = self._layout(place).send(ours)
                found["cache.manifest"] = json.dumps(
                    {name: entry[name] for name in ("mediaType", "digest", "size")}
                )
        return found

    def telling(self, emit: Emit) -> Emit:
        """Events that name a directory of ours, told with the client's name for it."""

        def told(event: Event) -> None:
            if isinstance(event, Started):
                for ours, theirs in self._names.items():
                    event = replace(event, name=event.name.replace(ours, theirs))
            emit(event)

        return told

    def _layout(self, place: str) -> ClientLayout:
        return ClientLayout(self._session, f"{_LOCAL}:{place}", self._cancel)
