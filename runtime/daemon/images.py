"""Routes about images that are here: list, inspect, history, tag, delete, prune (FEATURES E-26, E-30 to E-37)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from runtime.daemon import wire
from runtime.daemon.api import Route, version_of
from runtime.daemon.asked import filters_of, flag, is_true, time_of
from runtime.daemon.engine import Engine
from runtime.errors import InvalidInput, NotFound
from runtime.http.messages import Request, Response, json_response
from runtime.images.image import Image
from runtime.images.images import Images
from runtime.images.inspect import inspect
from runtime.images.prune import Wanted
from runtime.images.selection import FILTERS, Selection

_COUNTED_SINCE = (1, 44)  # before, lists did not say how many containers an image has


class ImageRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> Iterable[Route]:
        yield "GET", "/images/json", self.list
        yield "GET", "/images/{name:path}/json", self.inspect
        yield "GET", "/images/{name:path}/history", self.history
        yield "POST", "/images/{name:path}/tag", self.tag
        yield "DELETE", "/images/{name:path}", self.delete
        yield "POST", "/images/prune", self.prune

    def list(self, request: Request) -> Response:
        images = self._engine.images
        filters = filters_of(request, FILTERS)
        if "until" in filters:
            filters["until"] = [str(time_of(text)) for text in filters["until"]]
        if only := request.argument("filter"):  # what clients of old sent
            filters.setdefault("reference", []).append(only)
        selection = Selection(images, filters)
        known = images.list()
        counted = version_of(request) >= _COUNTED_SINCE
        containers = Counter(each.image for each in self._engine.containers.list(everything=True))
        shared = shared_sizes(images, known) if flag(request, "shared-size") else {}
        records = [
            wire.image_summary(
                image,
                names,
                containers=containers[image.id] if counted else -1,
                shared=shared.get(image.id, -1),
                virtual=not counted,
            )
            for image in known
            if (names := selection.names(image)) is not None
        ]
        return json_response(records)

    def inspect(self, request: Request) -> Response:
        images = self._engine.images
        image = found(images, request.params["name"])
        record = wire.image_record(inspect(images, image), virtual=version_of(request) < _COUNTED_SINCE)
        return json_response(record)

    def history(self, request: Request) -> Response:
        images = self._engine.images
        image = found(images, request.params["name"])
        return json_response(wire.history_records(image, images.history(image)))

    def tag(self, request: Request) -> Response:
        images, repository = self._engine.images, request.argument("repo")
        if not repository:
            raise InvalidInput("invalid reference format: no repository was given")
        image = found(images, request.params["name"])
        tag = request.argument("tag")
        images.tag(image.id, f"{repository}:{tag}" if tag else repository)
        return Response(201)

    def delete(self, request: Request) -> Response:
        """Files go at once, as docker has it."""
        with self._engine.working() as images:
            found(images, request.params["name"])
            removed = images.remove(request.params["name"], flag(request, "force"))
            images.store.leases.release()
            images.store.collect()
        return json_response([wire.removed_record(each) for each in removed])

    def prune(self, request: Request) -> Response:
        filters = filters_of(request, ("dangling", "until", "label", "label!"))
        dangling = is_true(filters.get("dangling", ["true"])[-1], "dangling")
        until = filters.get("until", ())
        wanted = Wanted(
            everything=not dangling,
            until=time_of(until[-1]) if until else 0.0,
            labels=tuple(filters.get("label", ())),
            not_labels=tuple(filters.get("label!", ())),
        )
        with self._engine.working() as images:
            removed = images.prune(wanted)
            images.store.leases.release()
            freed = images.store.collect().freed
        gone = [wire.removed_record(each) for each in removed]
        return json_response({"ImagesDeleted": gone or None, "SpaceReclaimed": freed})


def found(images: Images, name: str) -> Image:
    """The image of that name. Clients look for this sentence to pull what is missing."""
    image = images.find(name)
    if image is None:
        raise no_image(name)
    return image


def no_image(name: str) -> NotFound:
    tagged = "@" in name or ":" in name.rpartition("/")[2] or not name
    return NotFound(f"No such image: {name}" if tagged else f"No such image: {name}:latest")


def shared_sizes(images: Images, known: Iterable[Image]) -> dict[str, int]:
    """Bytes of each image's layers that others have too."""
    layers = {image.id: list(zip(image.diff_ids, images.records.layer_sizes(image.id))) for image in known}
    users = Counter(diff_id for each in layers.values() for diff_id in {diff_id for diff_id, _ in each})
    return {
        identity: sum(size for diff_id, size in each if users[diff_id] > 1)
        for identity, each in layers.items()
    }
