"""Descriptors (image-spec descriptor.md): what a thing is, its digest and its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry_client.oci.digest import Digest, parse_digest
from registry_client.oci.platform import Platform, parse_platform
from registry_client.values import field, frozen


@frozen
class Descriptor:
    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON object, keys in the order the spec names them, absent ones left out."""
        record: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.urls:
            record["urls"] = list(self.urls)
        if self.annotations:
            record["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            record["platform"] = platform_to_json(self.platform)
        if self.artifact_type:
            record["artifactType"] = self.artifact_type
        return record


def platform_to_json(platform: Platform) -> dict[str, str]:
    """The `platform` object of a descriptor or config."""
    record = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        record["variant"] = platform.variant
    return record


def parse_descriptor(record: Any) -> Descriptor:
    """Read a descriptor from decoded JSON; ValueError says what is missing or wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"descriptor is not an object: {record!r:.80}")
    media_type, digest, size = record.get("mediaType"), record.get("digest"), record.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise ValueError("descriptor lacks mediaType or digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ValueError(f"descriptor of {digest} has no valid size: {size!r:.80}")
    urls = record.get("urls") or []
    if not isinstance(urls, list):
        raise ValueError(f"urls of {digest} is no list: {urls!r:.80}")
    return Descriptor(
        media_type,
        parse_digest(digest),
        size,
        strings(record.get("annotations")),
        _platform(record.get("platform")),
        str(record.get("artifactType") or ""),
        tuple(str(url) for url in urls),
    )


def strings(record: Any) -> dict[str, str]:
    """Annotations from decoded JSON; ValueError when they are no object."""
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise ValueError("annotations is not an object")
    return {str(key): str(value) for key, value in record.items()}


def _platform(record: Any) -> Platform | None:
    if not isinstance(record, dict) or not record.get("architecture") or not record.get("os"):
        return None
    if record["architecture"] == "unknown":
        return Platform("unknown", "unknown")
    parts = (record["os"], record["architecture"], record.get("variant") or "")
    try:
        return parse_platform("/".join(str(part) for part in parts if part))
    except ValueError:
        return None
