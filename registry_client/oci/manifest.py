"""Manifests and indexes (image-spec manifest.md, image-index.md; Docker schema 2 has the same structure).

`raw` is what was read or will be sent; the digest is taken over exactly these bytes and they are never written anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor, parse_descriptor, strings
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.platform import Platform, rank
from registry_client.values import field, frozen


@frozen
class Manifest:
    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    subject: Descriptor | None = None

    @property
    def digest(self) -> Digest:
        return digest_of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))


@frozen
class Index:
    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    subject: Descriptor | None = None

    @property
    def digest(self) -> Digest:
        return digest_of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))

    def choose(self, wanted: Platform) -> Descriptor | None:
        """The manifest that fits `wanted` best; None when none does. Attestations (`unknown`) never match."""
        ranked = [
            (score, position, entry)
            for position, entry in enumerate(self.manifests)
            if entry.platform is not None and (score := rank(wanted, entry.platform)) is not None
        ]
        if ranked:
            return min(ranked, key=lambda item: item[:2])[2]
        bare = [entry for entry in self.manifests if entry.platform is None]
        return bare[0] if len(bare) == 1 and len(self.manifests) == 1 else None


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or index; `media_type` is the Content-Type it came with. ValueError when it is neither."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"manifest is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError("manifest is not a JSON object")
    if record.get("schemaVersion") == 1:
        raise ValueError("schema 1 manifests are not supported; push the image again with a current tool")
    kind = _kind(record, media_type.partition(";")[0].strip())
    annotations = strings(record.get("annotations"))
    artifact_type = str(record.get("artifactType") or "")
    subject = parse_descriptor(record["subject"]) if record.get("subject") else None
    if kind in media_types.INDEXES:
        entries = tuple(parse_descriptor(entry) for entry in _list(record, "manifests"))
        return Index(raw, kind, entries, annotations, artifact_type, subject)
    config = parse_descriptor(record.get("config"))
    layers = tuple(parse_descriptor(layer) for layer in _list(record, "layers"))
    return Manifest(raw, kind, config, layers, annotations, artifact_type, subject)


def _kind(record: dict[str, Any], sent_as: str) -> str:
    declared = record.get("mediaType") or sent_as
    if not isinstance(declared, str):
        raise ValueError(f"the manifest's media type is no string: {declared!r:.80}")
    if declared in media_types.INDEXES or declared in media_types.MANIFESTS:
        return declared
    if "manifests" in record:
        return media_types.OCI_INDEX
    if "config" in record:
        return media_types.OCI_MANIFEST
    raise ValueError(f"unsupported manifest media type {declared!r}")


def _list(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{key} of the manifest is no list: {value!r:.80}")
    return value


def make_manifest(
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    annotations: Mapping[str, str] | None = None,
    *,
    media_type: str = media_types.OCI_MANIFEST,
    artifact_type: str = "",
    subject: Descriptor | None = None,
) -> Manifest:
    """An image manifest, OCI's unless said otherwise; the same arguments always give the same bytes."""
    record: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        record["artifactType"] = artifact_type
    record |= {"config": config.to_json(), "layers": [layer.to_json() for layer in layers]}
    if subject is not None:
        record["subject"] = subject.to_json()
    if annotations:
        record["annotations"] = dict(sorted(annotations.items()))
    raw = canonical_json(record)
    return Manifest(raw, media_type, config, layers, dict(annotations or {}), artifact_type, subject)


def make_index(
    manifests: tuple[Descriptor, ...],
    annotations: Mapping[str, str] | None = None,
    *,
    media_type: str = media_types.OCI_INDEX,
) -> Index:
    """An image index, OCI's unless said otherwise; the same arguments always give the same bytes."""
    record: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [entry.to_json() for entry in manifests],
    }
    if annotations:
        record["annotations"] = dict(sorted(annotations.items()))
    return Index(canonical_json(record), media_type, manifests, dict(annotations or {}))


def canonical_json(record: Any) -> bytes:
    """One spelling of a JSON value: keys in the order given, no white space, UTF-8."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
