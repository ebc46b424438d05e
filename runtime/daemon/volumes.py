"""Routes about volumes (FEATURES E-53 to E-58)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runtime.containers.inspect import volume_record
from runtime.daemon.api import Route, version_of
from runtime.daemon.asked import expecting, filters_of, flag, is_true
from runtime.daemon.containers import json_body
from runtime.daemon.engine import Engine
from runtime.daemon.place_query import string_map
from runtime.errors import NotFound, Unsupported
from runtime.http.messages import Request, Response, json_response
from runtime.volumes import Volume

Filters = Mapping[str, Sequence[str]]
_FILTERS = ("dangling", "driver", "label", "name")
_ANONYMOUS_SINCE = (1, 42)  # before, a prune took named volumes too


class VolumeRoutes:
    def __init__(self, engine: Engine) -> None:
        self._volumes = engine.volumes

    def routes(self) -> Iterable[Route]:
        yield "GET", "/volumes", self.list
        yield "GET", "/volumes/{name}", self.inspect
        yield "DELETE", "/volumes/{name}", self.remove
        yield "POST", "/volumes/create", self.create
        yield "POST", "/volumes/prune", self.prune

    def list(self, request: Request) -> Response:
        wanted = filters_of(request, _FILTERS)
        chosen = [volume_record(each) for each in self._volumes.list() if self._fits(each, wanted)]
        return json_response({"Volumes": chosen, "Warnings": None})

    def _fits(self, volume: Volume, wanted: Filters) -> bool:
        for text in wanted.get("dangling", ()):
            if is_true(text, "dangling") == bool(self._volumes.users(volume.name)):
                return False
        names, drivers = wanted.get("name"), wanted.get("driver")
        if (names and not any(each in volume.name for each in names)) or (drivers and "local" not in drivers):
            return False
        pairs = [each.partition("=") for each in wanted.get("label", ())]
        return all(
            key in volume.labels and (not equals or volume.labels[key] == value)
            for key, equals, value in pairs
        )

    def inspect(self, request: Request) -> Response:
        return json_response(volume_record(self._get(request)))

    def _get(self, request: Request) -> Volume:
        volume = self._volumes.find(request.params["name"])
        if volume is None:
            raise NotFound(f"get {request.params['name']}: no such volume")
        return volume

    def create(self, request: Request) -> Response:
        record: dict[str, Any] = json_body(request)
        if (record.get("Driver") or "local") != "local":
            raise Unsupported(f"volume driver {record['Driver']!r}", hint="only `local`")
        with expecting("the volume's JSON"):
            name, labels = str(record.get("Name") or ""), string_map(record.get("Labels"))
            options = string_map(record.get("DriverOpts"))
        volume = self._volumes.create(name, labels=labels, options=options)
        return json_response(volume_record(volume), 201)

    def remove(self, request: Request) -> Response:
        force = flag(request, "force")
        if not force:
            self._get(request)
        self._volumes.remove(request.params["name"], force=force)
        return Response(204)

    def prune(self, request: Request) -> Response:
        filters = filters_of(request, ("all", "label", "label!"))
        if "label!" in filters:
            raise Unsupported("filter 'label!' of a volume prune", hint="leave it out")
        everything = version_of(request) < _ANONYMOUS_SINCE or any(
            is_true(each, "all") for each in filters.get("all", ())
        )
        pairs = [each.partition("=") for each in filters.get("label", ())]
        gone, freed = self._volumes.prune(
            everything=everything, labels={key: value for key, _, value in pairs}
        )
        return json_response({"VolumesDeleted": list(gone) or None, "SpaceReclaimed": freed})
