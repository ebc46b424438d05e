"""`GET /system/df`: what takes how much of the disk (FEATURES E-45)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

from runtime.containers.inspect import moment
from runtime.daemon import wire
from runtime.daemon.api import Route
from runtime.daemon.building import ImageBuilder
from runtime.daemon.engine import Engine
from runtime.daemon.images import shared_sizes
from runtime.errors import InvalidInput
from runtime.http.messages import Request, Response, json_response
from runtime.store.usage import size_of

_TYPES = ("container", "image", "volume", "build-cache")


class DiskRoutes:
    def __init__(self, engine: Engine, builder: ImageBuilder) -> None:
        self._engine, self._builder = engine, builder

    def routes(self) -> Iterable[Route]:
        yield "GET", "/system/df", self.usage

    def usage(self, request: Request) -> Response:
        wanted = request.query.get("type", list(_TYPES))
        for each in wanted:
            if each not in _TYPES:
                raise InvalidInput(f"unknown object type: {each}")
        record: dict[str, Any] = {
            "LayersSize": 0,
            "Images": None,
            "Containers": None,
            "Volumes": None,
            "BuildCache": None,
        }
        if "image" in wanted:
            record |= self._images()
        if "container" in wanted:
            record["Containers"] = self._containers()
        if "volume" in wanted:
            record["Volumes"] = self._volumes()
        if "build-cache" in wanted:
            record["BuildCache"] = self._builder.cached()
        return json_response(record)

    def _images(self) -> dict[str, Any]:
        images = self._engine.images
        known = images.list()
        used = Counter(each.image for each in self._engine.containers.list(everything=True))
        shared = shared_sizes(images, known)
        layers = {
            diff_id: size
            for image in known
            for diff_id, size in zip(image.diff_ids, images.records.layer_sizes(image.id))
        }
        records = [
            wire.image_summary(
                each, each.tags, containers=used[each.id], shared=shared[each.id], virtual=False
            )
            for each in known
        ]
        return {"LayersSize": sum(layers.values()), "Images": records}

    def _containers(self) -> list[dict[str, Any]]:
        return [
            {
                "Id": each.id,
                "Names": [f"/{each.name}"],
                "Image": each.image_name,
                "ImageID": each.image,
                "Created": int(each.created),
                "State": each.state.status,
                "Status": each.state.status,
                "SizeRw": size_of(os.path.join(each.directory, "upper")),
            }
            for each in self._engine.containers.list(everything=True)
        ]

    def _volumes(self) -> list[dict[str, Any]]:
        volumes = self._engine.volumes
        return [
            {
                "Name": each.name,
                "Driver": "local",
                "Mountpoint": each.path,
                "CreatedAt": moment(each.created),
                "Labels": dict(each.labels),
                "Options": dict(each.options),
                "Scope": "local",
                "UsageData": {"Size": size_of(each.path), "RefCount": len(volumes.users(each.name))},
            }
            for each in volumes.list()
        ]
