"""Pulls and pushes as docker tells of them: layer by layer, then the digest. Takes events, tells records."""

from __future__ import annotations

from registry_client.reference import Reference
from runtime.daemon import wire
from runtime.daemon.streams import Tell
from runtime.events import Event, Finished, Progress
from runtime.images.image import Image


class Pulling:
    """A pull's events as docker tells of them."""

    def __init__(self, tell: Tell, reference: Reference) -> None:
        self._tell, self._reference = tell, reference
        self._begun = False
        self._items: dict[str, int] = {}

    def emit(self, event: Event) -> None:
        if not isinstance(event, Progress):
            return
        self._begin()
        if event.item not in self._items:
            self._tell({"status": "Pulling fs layer", "progressDetail": {}, "id": event.item})
        self._items[event.item] = event.current
        self._tell(wire.progress_record("Downloading", event.item, event.current, event.total))

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._tell({"status": f"Pulling from {self._reference.path}", "id": self._reference.selector})

    def end(self, image: Image, new: bool) -> None:
        self._begin()
        for item in self._items:
            self._tell({"status": "Pull complete", "progressDetail": {}, "id": item})
        known = [each.partition("@") for each in image.repo_digests]
        for digest in (digest for name, _, digest in known if name == self._reference.name):
            self._tell({"status": f"Digest: {digest}"})
            break
        what = "Downloaded newer image for" if new else "Image is up to date for"
        self._tell({"status": f"Status: {what} {self._reference.familiar}"})


class Pushing:
    """A push's events as docker tells of them."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._items: dict[str, None] = {}

    def emit(self, event: Event) -> None:
        if isinstance(event, Progress):
            if event.item not in self._items:
                self._tell({"status": "Preparing", "progressDetail": {}, "id": event.item})
            self._items[event.item] = None
            self._tell(wire.progress_record("Pushing", event.item, event.current, event.total))
        elif isinstance(event, Finished):
            for item in self._items:
                self._tell({"status": "Pushed", "progressDetail": {}, "id": item})
            self._items.clear()

    def end(self, reference: Reference, digest: str, size: int) -> None:
        self._tell({"status": f"{reference.tag}: digest: {digest} size: {size}"})
        self._tell({"progressDetail": {}, "aux": {"Tag": reference.tag, "Digest": digest, "Size": size}})
