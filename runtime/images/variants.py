"""Names that stand for several platforms: which images those are, and the index they are pushed as.

A build of several platforms says so of its names, and so does a pull once all images of an index are here. The index is
pushed as it came, where all that it names is here, else made of the images; always the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_client.oci import media_types
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Index, Manifest, make_index, parse_manifest
from registry_client.oci.platform import Platform, rank
from registry_client.values import replace
from runtime.errors import InvalidInput, NotFound
from runtime.images.arrivals import is_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.cancel import Cancel
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.images.push import Parcel

_MANIFEST_LIMIT = 4 << 20


def variants_of(images: Images, tag: str) -> tuple[Image, ...]:
    """The images a canonical name stands for; none when it is one image."""
    found = [images.records.get(each) for each in images.records.variants(tag)]
    return tuple(each for each in found if each is not None)


def choose(images: Images, name: str, tag: str, platform: Platform) -> Image:
    """The image for a platform, of those the name stands for."""
    offered = {each.id: each for each in variants_of(images, tag) or (images.get(name),)}
    ranked = [(rank(platform, each.config.platform), each.id) for each in offered.values()]
    fitting = [(score, each) for score, each in ranked if score is not None]
    if not fitting:
        has = ", ".join(sorted(str(each.config.platform) for each in offered.values()))
        raise NotFound(f"{name} has no image for {platform} in the store", hint=f"it has {has}")
    return offered[min(fitting)[1]]


def note_index(images: Images, index: Index, tag: str) -> None:
    """Let a name that an index was pulled under stand for all of it, when all its images are here."""
    entries = [each for each in index.manifests if each.platform is None or each.platform.os != "unknown"]
    known = [images.records.by_manifest(each.digest) for each in entries]
    if len(known) > 1 and all(known):
        images.records.set_variants(tag, [ids[0] for ids in known])


def parcel_of(images: Images, tag: str, compression: str, cancel: Cancel | None) -> Parcel | None:
    """What is pushed of a name for several platforms; None when it is one image."""
    found = variants_of(images, tag)
    if len(found) < 2:
        return None
    return _as_it_came(images, found) or _made(images, found, compression, cancel)


def _made(images: Images, found: Sequence[Image], compression: str, cancel: Cancel | None) -> Parcel:
    from runtime.images.push import Parcel

    manifests = [images.manifest(each, compression, cancel) for each in found]
    entries = [
        replace(manifest.descriptor, platform=each.config.platform)
        for manifest, each in zip(manifests, found, strict=True)
    ]
    index = make_index(tuple(entries))
    images.store.leases.keep("blob", index.digest)
    images.store.content.put(index.raw)
    owners = {manifest.digest: each for manifest, each in zip(manifests, found, strict=True)}
    return Parcel(index, tuple(manifests), owners)


def _as_it_came(images: Images, found: Sequence[Image]) -> Parcel | None:
    """The index these images came in or were pushed as, with what else it names, if all of that is here."""
    for row in images.records.manifests_of(found[0].id):
        if row["media_type"] in media_types.INDEXES:
            parcel = _whole(images, Digest(row["digest"]))
            if parcel is not None and {each.id for each in parcel.images.values()} == {
                each.id for each in found
            }:
                return parcel
    return None


def _whole(images: Images, digest: Digest) -> Parcel | None:
    from runtime.images.push import Parcel

    index = _read(images, digest)
    if not isinstance(index, Index) or not index.manifests:
        return None
    manifests, owners = [], {}
    for entry in index.manifests:
        manifest = _read(images, entry.digest)
        if not isinstance(manifest, Manifest):
            return None
        if not all(is_here(images.store, blob.digest) for blob in (manifest.config, *manifest.layers)):
            return None
        owner = images.records.get(manifest.config.digest)
        if owner is not None:
            owners[manifest.digest] = owner
        manifests.append(manifest)
    return Parcel(index, tuple(manifests), owners) if owners else None


def _read(images: Images, digest: Digest) -> Manifest | Index | None:
    if not is_here(images.store, digest):
        return None
    try:
        return parse_manifest(images.store.content.read(digest, _MANIFEST_LIMIT))
    except (ValueError, InvalidInput):
        return None
