"""Take names from images, and with the last name the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_client.reference import parse_reference
from runtime.errors import Conflict
from runtime.images.image import Deleted, Removed, Untagged

if TYPE_CHECKING:
    from registry_client.oci.digest import Digest
    from runtime.images.images import Images


def remove(images: Images, name: str, force: bool) -> tuple[Removed, ...]:
    """Remove a name, or by id or digest an image with all its names. What a name stood for goes with its last name."""
    image, tag = images.get(name), images.tag_of(name)
    by_digest = "@" in name
    if not tag and not by_digest and len(image.tags) > 1 and not force:
        raise Conflict(
            f"image {image.short_id} has {len(image.tags)} names", hint="remove them by name, or use --force"
        )
    going = [tag] if tag else list(image.tags)
    users = images.users(image.id) if set(image.tags) <= set(going) else ()
    if users and not force:
        raise Conflict(
            f"image {image.short_id} is used by {' and '.join(users)}",
            hint="remove that first, or use --force to take only the name away",
        )
    records = images.records
    others = [each for tag in going for each in records.variants(tag) if each != image.id]
    with images.store.db.transaction():
        for tag in going:
            records.remove_tag(tag)
        gone = [image.id] if not users and not records.tags_of(image.id) else []
        gone += [each for each in dict.fromkeys(others) if _is_left(images, each)]
        for each in gone:
            records.remove(each)
    images.announce(image.id, "delete" if image.id in gone else "untag")
    untagged = [Untagged(parse_reference(tag).familiar) for tag in going]
    return (*untagged, *(Deleted(each) for each in gone))


def _is_left(images: Images, image_id: Digest) -> bool:
    """Whether nothing needs an image that was one of a name's platforms."""
    return not images.records.tags_of(image_id) and not images.users(image_id)
