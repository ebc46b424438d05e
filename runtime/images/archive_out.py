"""Write images as an archive: an OCI layout in a tar, which with manifest.json beside it is docker save's too (C-7).

The same images give the same bytes: members sorted, times 0, owner root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, split_digest
from registry_client.oci.manifest import Manifest, canonical_json, make_index
from registry_client.reference import Reference
from registry_client.values import frozen, replace
from runtime.images.image import Image
from runtime.store import Store
from runtime.store.layers import header

if TYPE_CHECKING:
    from runtime.images.images import Images

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20


@frozen
class Saved:
    """An image to write, its manifest with all blobs in the store, and the names it is saved under."""

    image: Image
    manifest: Manifest
    references: tuple[Reference, ...]


def write_archive(images: Images, saved: Iterable[Saved], out: BinaryIO, *, docker: bool) -> None:
    """Write the archive; with `docker` it can also be read by `docker load` of any age since 1.10."""
    chosen = list(saved)
    blobs = [digest for each in chosen for digest in blobs_of(each.manifest)]
    files = layout_files(tuple(_index_entries(chosen)))
    write_members(images.store, out, blobs, files | docker_files(chosen) if docker else files)


def blobs_of(manifest: Manifest) -> tuple[Digest, ...]:
    """What a manifest needs to be complete, itself included."""
    return (manifest.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers))


def layout_files(entries: tuple[Descriptor, ...]) -> dict[str, bytes]:
    """The files of an OCI layout that are no blobs."""
    return {"index.json": make_index(entries).raw, "oci-layout": _LAYOUT}


def docker_files(saved: list[Saved]) -> dict[str, bytes]:
    """The files docker save adds to a layout."""
    files = {"manifest.json": canonical_json([_docker_entry(each) for each in saved])}
    if repositories := _repositories(saved):
        files["repositories"] = canonical_json(repositories)
    return files


def write_members(store: Store, out: BinaryIO, blobs: Iterable[Digest], files: Mapping[str, bytes]) -> None:
    """The archive itself: the blobs in order of their digests, then the other files."""
    sizes = {digest: store.content.size(digest) for digest in blobs}
    _add_directory(out, "blobs/")
    for algorithm in sorted({split_digest(digest)[0] for digest in sizes}):
        _add_directory(out, f"blobs/{algorithm}/")
    for digest in sorted(sizes):
        _add_blob(out, store, digest, sizes[digest])
    for name, data in sorted(files.items()):
        _add_file(out, name, data)
    out.write(bytes(2 * header.BLOCK))


def _index_entries(saved: list[Saved]) -> Iterable[Descriptor]:
    for each in saved:
        entry = replace(each.manifest.descriptor, platform=each.image.config.platform)
        yield from named_entries(entry, each.references)


def named_entries(entry: Descriptor, references: Iterable[Reference]) -> Iterable[Descriptor]:
    """An entry of `index.json`, once for each name it has."""
    names = list(references)
    for reference in names:
        said = {
            "io.containerd.image.name": str(reference),
            "org.opencontainers.image.ref.name": reference.tag,
        }
        yield replace(entry, annotations={**entry.annotations, **said})
    if not names:
        yield entry


def _docker_entry(saved: Saved) -> dict[str, Any]:
    return {
        "Config": blob_name(saved.manifest.config.digest),
        "RepoTags": [reference.familiar for reference in saved.references] or None,
        "Layers": [blob_name(layer.digest) for layer in saved.manifest.layers],
    }


def _repositories(saved: list[Saved]) -> dict[str, dict[str, str]]:
    """The oldest form: it names the top layer, which nobody reads any more, but some tools want the file."""
    found: dict[str, dict[str, str]] = {}
    for each in saved:
        for reference in each.references:
            if each.manifest.layers:
                top = split_digest(each.manifest.layers[-1].digest)[1]
                found.setdefault(reference.familiar_name, {})[reference.tag] = top
    return {name: dict(sorted(tags.items())) for name, tags in sorted(found.items())}


def blob_name(digest: Digest) -> str:
    """The name of a blob within a layout."""
    return "blobs/" + "/".join(split_digest(digest))


def _add_directory(out: BinaryIO, name: str) -> None:
    out.write(header.header(name.encode(), header.DIRECTORY, mode=0o755))


def _add_file(out: BinaryIO, name: str, data: bytes) -> None:
    out.write(header.header(name.encode(), header.REGULAR, mode=0o644, size=len(data)))
    out.write(data + header.padding(len(data)))


def _add_blob(out: BinaryIO, store: Store, digest: Digest, size: int) -> None:
    out.write(header.header(blob_name(digest).encode(), header.REGULAR, mode=0o644, size=size))
    with store.content.open(digest) as file:
        while chunk := file.read(_CHUNK):
            out.write(chunk)
    out.write(header.padding(size))
