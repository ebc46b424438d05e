"""What `docker image inspect` and `docker history` tell of an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry_client.reference import parse_reference
from registry_client.values import frozen
from runtime.images.image import Image

if TYPE_CHECKING:
    from runtime.images.images import Images


@frozen
class Step:
    """One line of the history; `size` is that of the layer's tar, 0 without a layer."""

    created: str
    created_by: str
    comment: str
    size: int


def history(images: Images, image: Image) -> tuple[Step, ...]:
    """How the image was made, last step first."""
    sizes = iter(images.records.layer_sizes(image.id))
    steps = [
        Step(each.created, each.created_by, each.comment, 0 if each.empty_layer else next(sizes, 0))
        for each in image.config.history
    ]
    return tuple(reversed(steps))


def inspect(images: Images, image: Image) -> dict[str, Any]:
    """Docker's JSON of an image (Engine API, ImageInspect)."""
    record = json.loads(image.raw_config)
    return {
        "Id": image.id,
        "RepoTags": [parse_reference(tag).familiar for tag in image.tags],
        "RepoDigests": [parse_reference(name).familiar for name in image.repo_digests],
        "Parent": "",
        "Comment": image.config.history[-1].comment if image.config.history else "",
        "Created": image.created,
        "Author": image.config.author,
        "Config": record.get("config") or {},
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Os": image.config.platform.os,
        "OsVersion": str(record.get("os.version") or ""),
        "Size": image.size,
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": images.records.last_tagged(image.id)},
    }
