"""`GET /events`: what happens, as it happens, to those who ask for it (FEATURES E-44)."""

from __future__ import annotations

import time
from collections.abc import Iterable

from runtime.cancel import Cancel
from runtime.daemon import wire
from runtime.daemon.api import Route
from runtime.daemon.asked import filters_of, time_of
from runtime.daemon.engine import Engine
from runtime.daemon.happened import Listener
from runtime.daemon.streams import Tell, stream
from runtime.errors import InvalidInput
from runtime.events import Changed
from runtime.http.messages import Request, Response

FILTERS = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service",
    "type", "volume",
)  # fmt: skip
_OBJECTS = ("container", "image", "network", "volume")


class EventRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> Iterable[Route]:
        yield "GET", "/events", self.events

    def events(self, request: Request) -> Response:
        since, until = (
            time_of(text) if (text := request.argument(name)) else 0.0 for name in ("since", "until")
        )
        if since and until and since > until:
            raise InvalidInput("`since` time cannot be after `until` time")
        wanted = Wanted(filters_of(request, FILTERS))

        # From before the answer begins: a client that has its head counts on what follows.
        kept, listener = self._engine.happened.listen()

        def work(tell: Tell, cancel: Cancel) -> None:
            try:
                with cancel.on_cancel(listener.close):
                    for event in kept if since or until else ():
                        if event.time >= since and (not until or event.time <= until) and wanted.fits(event):
                            tell(wire.event_record(event, old=True))
                    self._follow(listener, until, wanted, tell, cancel)
            finally:
                self._engine.happened.forget(listener)

        return stream(request, work, self._engine.cancel, at_once=True)

    @staticmethod
    def _follow(listener: Listener, until: float, wanted: Wanted, tell: Tell, cancel: Cancel) -> None:
        while (left := until - time.time() if until else None) is None or left > 0:
            if cancel.cancelled or (new := listener.next(left)) is None:
                return
            if wanted.fits(new):
                tell(wire.event_record(new, old=True))


class Wanted:
    """Docker's rule: of one filter any value, of several filters all; of labels all values."""

    def __init__(self, filters: dict[str, list[str]]) -> None:
        self._filters = filters

    def fits(self, event: Changed) -> bool:
        return all(self._holds(name, values, event) for name, values in self._filters.items())

    @staticmethod
    def _holds(name: str, values: list[str], event: Changed) -> bool:
        if name == "type":
            return event.kind in values
        if name == "event":
            return any(event.action == value or event.action.startswith(f"{value}:") for value in values)
        if name == "scope":
            return "local" in values
        if name == "label":
            return all(_has(event, value) for value in values)
        if name in _OBJECTS:
            named = (event.id, event.attributes.get("name", ""))
            return event.kind == name and any(_is_named(named, value) for value in values)
        return event.kind == name


def _is_named(named: tuple[str, str], value: str) -> bool:
    identity, name = named
    return (
        value in named
        or identity.removeprefix("sha256:").startswith(value)
        or name.partition(":")[0] == value
    )


def _has(event: Changed, label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in event.attributes and (not equals or event.attributes[key] == value)
