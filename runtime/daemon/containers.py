"""Routes about containers: create, list, inspect, start to remove (FEATURES E-1 to E-3, E-10 to E-17, E-20, E-21, E-25)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from typing import Any

from runtime.cancel import Cancel
from runtime.containers.container import Container
from runtime.containers.inspect import container_record
from runtime.containers.signals import parse_signal
from runtime.containers.spec import ExitStatus
from runtime.containers.waiting import wait, wait_removed, wait_started
from runtime.daemon import wire_containers as wire
from runtime.daemon.api import Route
from runtime.daemon.asked import expecting, filters_of, flag, number, time_of
from runtime.daemon.attached import Attached, Ending
from runtime.daemon.container_query import container_spec
from runtime.daemon.engine import Engine
from runtime.daemon.images import no_image
from runtime.daemon.streams import Tell, stream
from runtime.errors import InvalidInput, NotFound
from runtime.http.messages import Request, Response, json_response

_BODY = 4 << 20
_KILLED_WITHIN = 10.0
# What `ps --filter` knows (runtime.containers.listing), in the API's spelling.
_FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish", "since", "status",
    "volume",
)  # fmt: skip
_CONDITIONS = ("", "not-running", "next-exit", "removed")


class ContainerRoutes:
    def __init__(self, engine: Engine, attached: Attached) -> None:
        self._engine, self._containers, self._attached = engine, engine.containers, attached

    def routes(self) -> Iterable[Route]:
        one = "/containers/{id}"
        yield "GET", "/containers/json", self.list
        yield "POST", "/containers/create", self.create
        yield "POST", "/containers/prune", self.prune
        yield "GET", f"{one}/json", self.inspect
        yield "GET", f"{one}/top", self.top
        yield "GET", f"{one}/changes", self.changes
        yield "POST", f"{one}/start", self.start
        yield "POST", f"{one}/stop", self.stop
        yield "POST", f"{one}/restart", self.restart
        yield "POST", f"{one}/kill", self.kill
        yield "POST", f"{one}/pause", self.pause
        yield "POST", f"{one}/unpause", self.unpause
        yield "POST", f"{one}/rename", self.rename
        yield "POST", f"{one}/resize", self.resize
        yield "POST", f"{one}/wait", self.wait
        yield "DELETE", one, self.remove

    def _get(self, request: Request) -> Container:
        return found(self._engine, request.params["id"])

    # --- looking --------------------------------------------------------------------------------------------------

    def list(self, request: Request) -> Response:
        filters = filters_of(request, _FILTERS)
        filters.pop("is-task", None)
        limit, size = number(request, "limit"), flag(request, "size")
        everything = flag(request, "all") or limit > 0 or "exited" in filters
        pairs = [(name, value) for name, values in filters.items() for value in values]
        listed = self._containers.list(everything=everything, filters=pairs)
        networks = self._engine.networks
        records = [
            wire.container_summary(each, container_record(networks, each, size))
            for each in (listed[:limit] if limit > 0 else listed)
        ]
        return json_response(records)

    def inspect(self, request: Request) -> Response:
        container = self._get(request)
        record = container_record(self._engine.networks, container, flag(request, "size"))
        return json_response(wire.container_inspected(container, record))

    def top(self, request: Request) -> Response:
        rows = self._containers.top(self._get(request).id)
        titles = list(rows[0]) if rows else []
        return json_response(
            {"Titles": titles, "Processes": [[row[name] for name in titles] for row in rows]}
        )

    def changes(self, request: Request) -> Response:
        kinds = {"C": 0, "A": 1, "D": 2}
        found = self._containers.changes(self._get(request).id)
        return json_response([{"Path": path, "Kind": kinds[kind]} for kind, path in found] or None)

    # --- making and removing --------------------------------------------------------------------------------------

    def create(self, request: Request) -> Response:
        record = json_body(request)
        with expecting("the container's JSON"):
            spec = container_spec(record, request.argument("name"), request.argument("platform"))
        if self._engine.images.find(spec.image) is None:
            raise no_image(spec.image)
        container = self._containers.create(spec, pull="never")
        return json_response({"Id": container.id, "Warnings": []}, 201)

    def remove(self, request: Request) -> Response:
        container = self._get(request)
        if flag(request, "link"):
            raise InvalidInput("links cannot be removed by themselves here")
        self._containers.remove(container.id, force=flag(request, "force"), volumes=flag(request, "v"))
        return Response(204)

    def prune(self, request: Request) -> Response:
        filters = filters_of(request, ("until", "label"))
        until = time_of(filters["until"][-1]) if filters.get("until") else None
        pairs = [each.partition("=") for each in filters.get("label", ())]
        gone, freed = self._containers.prune(until=until, labels=[(key, value) for key, _, value in pairs])
        return json_response({"ContainersDeleted": list(gone) or None, "SpaceReclaimed": freed})

    # --- running --------------------------------------------------------------------------------------------------

    def start(self, request: Request) -> Response:
        container = self._get(request)
        if container.running:
            return Response(304)
        self._attached.start(container)
        return Response(204)

    def stop(self, request: Request) -> Response:
        container, patience = self._get(request), _patience(request)
        done = self._containers.stop(container.id, patience, signal_name=request.argument("signal"))
        return Response(204 if done else 304)

    def restart(self, request: Request) -> Response:
        self._containers.restart(self._get(request).id, _patience(request))
        return Response(204)

    def kill(self, request: Request) -> Response:
        container, number = self._get(request), parse_signal(request.argument("signal") or "KILL")
        self._containers.kill(container.id, number)
        if number == signal.SIGKILL:
            # As docker has it: after this signal clients go on as if it had ended.
            wait(container, _KILLED_WITHIN)
        return Response(204)

    def pause(self, request: Request) -> Response:
        self._containers.pause(self._get(request).id)
        return Response(204)

    def unpause(self, request: Request) -> Response:
        self._containers.unpause(self._get(request).id)
        return Response(204)

    def rename(self, request: Request) -> Response:
        self._containers.rename(self._get(request).id, request.argument("name").removeprefix("/"))
        return Response(204)

    def resize(self, request: Request) -> Response:
        self._containers.resize(self._get(request).id, number(request, "h"), number(request, "w"))
        return Response(200)

    def wait(self, request: Request) -> Response:
        """The head comes at once, when we are ready: clients wait for it before they start the container."""
        container, condition = self._get(request), request.argument("condition")
        if condition not in _CONDITIONS:
            raise InvalidInput(f'invalid condition: "{condition}"')

        ending = self._attached.expect(container)

        def work(tell: Tell, cancel: Cancel) -> None:
            try:
                tell(wire.waited(self._waited(container, condition, ending, cancel)))
            finally:
                self._attached.forget(container, ending)

        return stream(request, work, self._engine.cancel, at_once=True)

    @staticmethod
    def _waited(container: Container, condition: str, ending: Ending, cancel: Cancel) -> ExitStatus | None:
        if condition in ("", "not-running") and not container.running:
            return container.exit
        if not container.running:
            wait_started(container, cancel)
        ended = ending.get(cancel) if ending.claimed else wait(container, cancel=cancel)
        if condition == "removed":
            wait_removed(container, cancel)
        return ended


def found(engine: Engine, name: str) -> Container:
    container = engine.containers.find(name.removeprefix("/"))
    if container is None:
        raise NotFound(f"No such container: {name}")
    return container


def json_body(request: Request) -> dict[str, Any]:
    try:
        record = json.loads(request.body.read(_BODY) or b"{}")
    except ValueError as error:
        raise InvalidInput(f"invalid JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidInput("invalid JSON: want an object")
    return record


def _patience(request: Request) -> float | None:
    """Seconds until a stop becomes a kill; None is the container's own."""
    text = request.argument("t")
    return float(text) if text.lstrip("-").isdigit() else None
