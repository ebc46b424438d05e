"""Read an image archive (FEATURES C-7): an OCI layout in a tar, docker save's tar of any age, or both in one.

Everything is read once, as a stream: blobs go to the content store on the way, small files stay in memory. Which of
them make an image is decided at the end. Links in the archive are not followed, and nothing is written under a name the archive chose.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from registry_client.oci import media_types
from registry_client.oci.config import parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of, parse_digest
from registry_client.oci.manifest import Index, Manifest, parse_manifest
from registry_client.oci.platform import Platform
from registry_client.reference import Reference, parse_reference
from runtime.errors import InvalidInput, NotFound
from runtime.store import Store
from runtime.store.layers import header
from runtime.store.layers.reader import Member, TarReader

_SMALL = 4 << 20
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image of an archive. `layers` are the blobs, bottom first; `manifest` is None in old archives."""

    raw_config: bytes
    layers: tuple[Descriptor, ...]
    manifest: Manifest | None
    references: tuple[Reference, ...]


@dataclass(slots=True)
class _Archive:
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, tuple[Digest, int]] = field(default_factory=dict)


def read_archive(store: Store, stream: BinaryIO, platform: Platform) -> list[Loaded]:
    """Store the archive's blobs and say what its images are."""
    from runtime.store.layers import decompress

    archive = _Archive()
    for member in (reader := TarReader(decompress(stream))):
        _take(store, archive, member, reader)
    try:
        if "index.json" in archive.files:
            return _from_layout(store, archive, platform)
        if "manifest.json" in archive.files:
            return _from_docker(store, archive)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"the archive is damaged: {error}") from error
    hint = "make it with `docker save`, `skopeo copy … oci-archive:` or `pipe save`"
    if "repositories" in archive.files:
        raise InvalidInput("the archive is of Docker before 1.10, which has no image configs", hint=hint)
    raise InvalidInput(
        "not an image archive: it has neither index.json nor manifest.json",
        hint="a root file system is imported with `pipe import`",
    )


# --- members --------------------------------------------------------------------------------------------------------


def _take(store: Store, archive: _Archive, member: Member, reader: TarReader) -> None:
    name = os.path.normpath(os.fsdecode(member.name)).lstrip("/")
    if member.kind != header.REGULAR:
        # Some tools add links for Docker before 1.10; whatever needs one finds its target missing.
        return
    if name.startswith("blobs/"):
        _store_blob(store, archive, name, member, reader)
    elif member.size <= _SMALL and not name.endswith((".tar", "/VERSION")):
        archive.files[name] = b"".join(reader.data())
    else:
        _store(store, archive, name, None, member, reader)


def _store_blob(store: Store, archive: _Archive, name: str, member: Member, reader: TarReader) -> None:
    try:
        digest = parse_digest(name.removeprefix("blobs/").replace("/", ":"))
    except ValueError as error:
        raise InvalidInput(f"invalid blob name {name!r} in the archive") from error
    store.leases.keep("blob", digest)
    if store.content.has(digest):
        archive.blobs[name] = (digest, store.content.size(digest))
    else:
        _store(store, archive, name, digest, member, reader)


def _store(
    store: Store, archive: _Archive, name: str, digest: Digest | None, member: Member, reader: TarReader
) -> None:
    with store.content.writer(digest, member.size) as writer:
        for chunk in reader.data():
            writer.write(chunk)
        store.leases.keep("blob", writer.digest)
        archive.blobs[name] = (writer.commit(), member.size)


# --- OCI layout -----------------------------------------------------------------------------------------------------


def _from_layout(store: Store, archive: _Archive, platform: Platform) -> list[Loaded]:
    index = parse_manifest(archive.files["index.json"], media_types.OCI_INDEX)
    if not isinstance(index, Index):
        raise ValueError("index.json is not an index")
    repo_tags = _repo_tags(archive)
    loaded = []
    for entry in index.manifests:
        manifest = _manifest(store, entry, platform)
        if manifest is None or manifest.config.media_type not in media_types.CONFIGS:
            continue
        names = (*_names(entry), *repo_tags.get(manifest.config.digest, ()))
        config = store.content.read(manifest.config.digest)
        loaded.append(Loaded(config, manifest.layers, manifest, tuple(dict.fromkeys(names))))
    return _merged(loaded)


def _merged(images: list[Loaded]) -> list[Loaded]:
    """An image with several names has several entries: make it one."""
    by_manifest: dict[bytes, Loaded] = {}
    for image in images:
        assert image.manifest is not None
        key = image.manifest.raw
        before = by_manifest[key].references if key in by_manifest else ()
        names = tuple(dict.fromkeys((*before, *image.references)))
        by_manifest[key] = Loaded(image.raw_config, image.layers, image.manifest, names)
    return list(by_manifest.values())


def _manifest(store: Store, entry: Descriptor, platform: Platform, depth: int = 0) -> Manifest | None:
    """The image manifest an entry of the index leads to, through nested indexes."""
    if entry.media_type not in media_types.INDEXES | media_types.MANIFESTS or depth > 4:
        return None
    if entry.platform is not None and entry.platform.os == "unknown":
        return None
    found = parse_manifest(store.content.read(entry.digest, _SMALL), entry.media_type)
    if isinstance(found, Manifest):
        return found
    chosen = found.choose(platform)
    if chosen is None:
        offered = ", ".join(str(each.platform) for each in found.manifests if each.platform)
        raise NotFound(f"the archive has no image for {platform}", hint=f"it has {offered or 'none at all'}")
    return _manifest(store, chosen, platform, depth + 1)


def _names(entry: Descriptor) -> list[Reference]:
    """Full names only: a bare tag, as some tools write, does not say of what."""
    found = []
    for key in _NAME_ANNOTATIONS:
        text = entry.annotations.get(key, "")
        if key == "io.containerd.image.name" or ":" in text or "/" in text:
            found += _references([text])
    return found


# --- docker save ----------------------------------------------------------------------------------------------------


def _repo_tags(archive: _Archive) -> dict[str, list[Reference]]:
    """Names by config digest, from the manifest.json beside an OCI layout."""
    names: dict[str, list[Reference]] = {}
    for record in json.loads(archive.files.get("manifest.json", b"[]")):
        digest = archive.blobs.get(str(record.get("Config")), (None, 0))[0]
        if digest is not None:
            names.setdefault(digest, []).extend(_references(record.get("RepoTags")))
    return names


def _from_docker(store: Store, archive: _Archive) -> list[Loaded]:
    return [_docker_image(store, archive, record) for record in json.loads(archive.files["manifest.json"])]


def _docker_image(store: Store, archive: _Archive, record: dict[str, Any]) -> Loaded:
    config = _file(store, archive, os.path.normpath(record["Config"]))
    diff_ids = parse_config(config).diff_ids
    names = [os.path.normpath(str(name)) for name in record.get("Layers") or ()]
    if len(names) != len(diff_ids):
        raise ValueError(f"it lists {len(names)} layers for a config with {len(diff_ids)}")
    layers = []
    for name in names:
        if name not in archive.blobs:
            raise ValueError(f"layer {name!r} is missing, or a link")
        digest, size = archive.blobs[name]
        layers.append(Descriptor(_layer_type(store, digest), digest, size))
    return Loaded(config, tuple(layers), None, tuple(_references(record.get("RepoTags"))))


def _layer_type(store: Store, digest: Digest) -> str:
    with store.content.open(digest) as file:
        start = file.read(4)
    if start.startswith(b"\x1f\x8b"):
        return media_types.OCI_LAYER_GZIP
    return media_types.OCI_LAYER_ZSTD if start == b"\x28\xb5\x2f\xfd" else media_types.OCI_LAYER


def _file(store: Store, archive: _Archive, name: str) -> bytes:
    if name in archive.files:
        return archive.files[name]
    if name not in archive.blobs:
        raise ValueError(f"{name!r} is missing")
    return store.content.read(archive.blobs[name][0], _SMALL)


def _references(texts: Any) -> list[Reference]:
    found = []
    for text in texts or ():
        try:
            reference = parse_reference(str(text))
        except ValueError:
            continue  # e.g. `<none>:<none>`
        if not reference.digest:
            found.append(reference.or_latest())
    return found


def store_config(store: Store, raw: bytes) -> Descriptor:
    """Put a config among the blobs."""
    digest = digest_of(raw)
    store.leases.keep("blob", digest)
    store.content.put(raw)
    return Descriptor(media_types.OCI_CONFIG, digest, len(raw))
