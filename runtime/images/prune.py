"""Which images nobody needs: dangling ones (no name), or with `everything` all that no container uses (D-37)."""

from __future__ import annotations

import fnmatch
from datetime import datetime
from typing import TYPE_CHECKING

from registry_client.values import frozen
from runtime.images.image import Image, Removed
from runtime.store.collect import root_views, roots

if TYPE_CHECKING:
    from runtime.images.images import Images


_USERS = {
    "roots_containers": "a container",
    "roots_registry": "the embedded registry",
    "roots_variants": "a name for several platforms",
}


@frozen(kw_only=True)
class Wanted:
    """Only images that fit all of this are pruned. `until` is a time; labels are `name` or `name=value`, may have `*`."""

    everything: bool = False
    until: float = 0.0
    labels: tuple[str, ...] = ()
    not_labels: tuple[str, ...] = ()

    def fits(self, image: Image) -> bool:
        if image.tags and not self.everything:
            return False
        if self.until and created_seconds(image) >= self.until:
            return False
        has = [has_label(image, label) for label in self.labels]
        return all(has) and not any(has_label(image, label) for label in self.not_labels)


def prune(images: Images, wanted: Wanted) -> tuple[Removed, ...]:
    """Remove them; their files go with the next collection."""
    removed: list[Removed] = []
    for image in images.list():
        if wanted.fits(image) and not users_of(images, image.id):
            removed.extend(images.remove(image.id, force=True))
    return tuple(removed)


def users_of(images: Images, image_id: str) -> tuple[str, ...]:
    """Which rooms' root views name the image, in words for people; leases of living processes count too."""
    with images.store.db.transaction() as connection:
        found = [
            _USERS.get(view, f"the {view.removeprefix('roots_')}")
            for view in root_views(connection)
            if image_id in roots(connection, "image", [view])
        ]
    if image_id in images.store.leases.held("image"):
        found.append("a running command")
    return tuple(found)


def created_seconds(image: Image) -> float:
    """The image's own time of creation; 0 when it has none."""
    return seconds_of(image.created)


def seconds_of(text: str) -> float:
    """Seconds since 1970 of a time in RFC 3339; 0 for anything else."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def has_label(image: Image, wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    found = image.config.config.labels.get(name)
    return found is not None and (not equals or fnmatch.fnmatchcase(found, value))
