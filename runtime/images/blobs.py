"""Manifests and compressed blobs of images that were only built here: made when something leaves the store.

A layer that came from elsewhere keeps its exact blob. One we built is written again from its snapshot; the same
snapshot, compression and program give the same bytes, and the diff_id is checked on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, chain_ids
from registry_client.oci.manifest import Manifest, make_manifest, parse_manifest
from registry_client.values import frozen
from runtime.cancel import Cancel, Sink, stoppable
from runtime.errors import HostFault, InvalidInput
from runtime.images.archive_in import store_config
from runtime.images.image import Image
from runtime.store.index import update_index

if TYPE_CHECKING:
    from runtime.images.images import Images
    from runtime.store.content import Writer
    from runtime.store.layers.compression import Compressor

    Packer = Callable[[Sink], Compressor]

_MANIFEST_LIMIT = 4 << 20
_LAYERS_AT_ONCE = 2  # each holds some 20 MiB of data on its way through its threads
_CHUNKS_AHEAD = 4
_CHUNK = 1 << 20
_TYPES = {
    "": media_types.OCI_LAYER,
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}
ESTARGZ = "estargz"  # gzip to whoever does not know it, with another diff_id: see `indexed`


Made = Callable[[Descriptor], None]
Packed = TypeVar("Packed")


def ignore_blob(blob: Descriptor) -> None:
    """For those who wait until all is there."""


@frozen
class Packing:
    """How layers leave: `kind` is gzip, zstd, estargz or "". With a `level`, or by `force`, what is not as asked is made anew."""

    kind: str = "gzip"
    level: int | None = None
    force: bool = False


def manifest_of(
    images: Images,
    image: Image,
    compression: str,
    cancel: Cancel | None = None,
    made: Made = ignore_blob,
) -> Manifest:
    """The image's manifest, with every blob it names in the store. `made` is told of those that had to be made."""
    _check_kind(compression)
    recorded = _recorded(images, image, compression)
    if recorded is not None:
        return recorded
    config, layers = parts_of(images, image, Packing(compression), cancel, made)
    manifest = make_manifest(config, layers)
    keep_manifest(images, image, manifest)
    return manifest


def keep_manifest(images: Images, image: Image, manifest: Manifest) -> None:
    """Have the image known by a manifest whose blobs are in the store."""
    images.store.leases.keep("blob", manifest.digest)
    images.store.content.put(manifest.raw)
    images.records.put_manifest(image.id, manifest.digest, manifest.media_type)
    images.records.settled([image.id])
    update_index(images.store)


def _recorded(images: Images, image: Image, compression: str) -> Manifest | None:
    """The manifest it already has, if all of it is here and as asked for, or as it came from elsewhere."""
    content, digest = images.store.content, image.manifest_digest
    if digest is None or not _kept(images, digest):
        return None
    found = parse_manifest(content.read(digest, _MANIFEST_LIMIT))
    if not isinstance(found, Manifest) or not all(_kept(images, each.digest) for each in found.layers):
        return None
    for layer in found.layers:
        fits = media_types.compression_of(layer.media_type) == compression
        if not fits and not images.records.came_as(layer.digest):
            return None
    if not _kept(images, found.config.digest):
        store_config(images.store, image.raw_config)
    return found


def _kept(images: Images, digest: Digest) -> bool:
    """Whether a blob is here. Leased first, so that what is found is not collected afterwards."""
    images.store.leases.keep("blob", digest)
    return images.store.content.has(digest)


def _check_kind(compression: str) -> None:
    if compression not in _TYPES:
        raise InvalidInput(f"unknown compression {compression!r}", hint="use gzip, zstd or uncompressed")


def parts_of(
    images: Images, image: Image, packing: Packing, cancel: Cancel | None = None, made: Made = ignore_blob
) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """The image's config and its layers, bottom first, as blobs in the store, made where they are not here.

    `made` is told of each as soon as it is there, from several threads: it may be sent while others are compressed.
    """
    if packing.kind == ESTARGZ:
        from runtime.images.indexed import indexed_parts

        return indexed_parts(images, image, packing, cancel, made)
    _check_kind(packing.kind)
    config = store_config(images.store, image.raw_config)
    made(config)

    def pack(diff_id: Digest, chain_id: Digest) -> Descriptor:
        layer = _packed_layer(images, diff_id, chain_id, packing, cancel)
        made(layer)
        return layer

    return config, for_each_layer(image, pack)


def for_each_layer(image: Image, pack: Callable[[Digest, Digest], Packed]) -> tuple[Packed, ...]:
    """What `pack` makes of each layer's diff_id and chain_id, some of them at once."""
    from concurrent.futures import ThreadPoolExecutor

    _reuse_memory()
    with ThreadPoolExecutor(_LAYERS_AT_ONCE, thread_name_prefix="compress") as pool:
        return tuple(pool.map(pack, image.diff_ids, chain_ids(image.diff_ids)))


def _reuse_memory() -> None:
    """Have chunks of data take the pages of earlier ones, whichever thread freed them.

    Else half of the time goes into the kernel's zeroing of new pages; and what each thread keeps for itself adds up.
    """
    from runtime.linux.memory import M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt

    mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 64 << 20)


def _packed_layer(
    images: Images, diff_id: Digest, chain_id: Digest, packing: Packing, cancel: Cancel | None
) -> Descriptor:
    if not kept_forms(images, diff_id) and (elsewhere := images.elsewhere.form(diff_id)) is not None:
        # A layer of a base that was never fetched: named as it is there, or fetched to be made as it is wanted.
        if not packing.force or elsewhere.media_type == _TYPES[packing.kind]:
            return elsewhere
        images.elsewhere.bring(elsewhere.digest, f"pull/{elsewhere.digest[:19]}", cancel)
    if packing.level is None and not packing.force:
        return layer_blob(images, diff_id, chain_id, packing.kind, cancel)
    for form in kept_forms(images, diff_id):
        if packing.force:
            fits = packing.level is None and form.media_type == _TYPES[packing.kind]
        else:
            fits = form.media_type != _TYPES[""] and images.records.came_as(form.digest)
        if fits:
            return form
    # Not recorded as a form of the layer: what nobody asked to be so again must not depend on it.
    return make_blob(images, diff_id, chain_id, packing.kind, _packer(packing), cancel)


def layer_blob(
    images: Images, diff_id: Digest, chain_id: Digest, compression: str, cancel: Cancel | None = None
) -> Descriptor:
    """A blob of the layer: one that is here, or a new one."""
    forms = kept_forms(images, diff_id)
    for form in sorted(forms, key=lambda each: each.media_type != _TYPES[compression]):
        # One that came compressed stays as it is: elsewhere it is known so, and need not be sent again.
        came = form.media_type != _TYPES[""] and images.records.came_as(form.digest)
        if came or form.media_type == _TYPES[compression]:
            return form
    packer = _packer(Packing(compression))
    made = make_blob(images, diff_id, chain_id, compression, packer, cancel)
    images.records.put_layer(diff_id, compression, made.digest, made.size, made=True)
    return made


def _packer(packing: Packing) -> Packer:
    def packer(sink: Sink) -> Compressor:
        from runtime.store.layers import compress

        return compress(sink, packing.kind, packing.level)

    return packer


def make_blob(
    images: Images, diff_id: Digest, chain_id: Digest, kind: str, packer: Packer, cancel: Cancel | None
) -> Descriptor:
    """The layer's tar as `packer` compresses it; it may be called again when a first attempt was in vain."""
    kept = kept_forms(images, diff_id)
    plain = [each for each in kept if each.media_type == _TYPES[""]]
    if not plain and not _has_files(images, diff_id, chain_id):
        plain = kept  # a base's layer that was fetched and not unpacked
    with images.store.content.writer() as writer:
        if plain:
            _compress_blob(images, plain[0], packer, stoppable(writer, cancel))
        else:
            _write_again(images, diff_id, chain_id, packer, writer, cancel)
        images.store.leases.keep("blob", writer.digest)
        size = writer.offset
        digest = writer.commit()
    return Descriptor(_TYPES[kind], digest, size)


def kept_forms(images: Images, diff_id: Digest) -> list[Descriptor]:
    """Blobs of the layer that are here."""
    return [form for form in images.records.layer_forms(diff_id) if _kept(images, form.digest)]


def _has_files(images: Images, diff_id: Digest, chain_id: Digest) -> bool:
    snapshots = images.store.snapshots
    return snapshots.by_chain(chain_id) is not None or snapshots.by_layer(diff_id) is not None


def _compress_blob(images: Images, blob: Descriptor, packer: Packer, sink: Sink) -> None:
    from runtime.store.layers import decompress

    with images.store.content.open(blob.digest) as file, packer(sink) as out:
        source = file if blob.media_type == _TYPES[""] else decompress(file)
        while chunk := source.read(_CHUNK):
            out.write(chunk)


def _write_again(
    images: Images,
    diff_id: Digest,
    chain_id: Digest,
    packer: Packer,
    writer: Writer,
    cancel: Cancel | None,
) -> None:
    """Write the layer's tar from its snapshot, compressed on other threads while this one reads and hashes."""
    from runtime.store.layers.pipe import Piped

    for source in layer_variants(images, diff_id, chain_id):
        writer.restart()
        sink = stoppable(writer, cancel)
        with packer(sink) as out, Piped(out, _CHUNKS_AHEAD) as pipe:
            found = source(pipe)
        if found == diff_id:
            return
    raise HostFault(
        f"the files of layer {diff_id} were changed in the store", hint="remove the image and build it again"
    )


def layer_variants(images: Images, diff_id: Digest, chain_id: Digest) -> list[LayerSource]:
    """Ways to write the layer. Whoever hashed it may or may not have left out unchanged directories."""
    from runtime.store.layers import EMPTY_LAYER

    snapshots = images.store.snapshots
    # Of an image that is only pushed, what a layer stands on need not be here.
    snapshot = snapshots.by_chain(chain_id) or snapshots.by_layer(diff_id)
    if snapshot is None:
        raise HostFault(f"layer {diff_id} is not in the store any more", hint="build or pull the image again")
    if diff_id == EMPTY_LAYER.diff_id and snapshot.diff_id != diff_id:
        return [LayerSource("", ())]
    lowers = images.store.snapshots.lowers(snapshot.id)
    plain = LayerSource(lowers[0], ())
    return [plain, LayerSource(lowers[0], lowers[1:])] if lowers[1:] else [plain]


class LayerSource:
    """A directory to write a layer from; "" is the layer without entries."""

    def __init__(self, directory: str, lowers: tuple[str, ...]) -> None:
        self._directory, self._lowers = directory, lowers

    def __call__(self, out: BinaryIO) -> Digest:
        from runtime.store.layers import LayerWriter, write_layer

        if not self._directory:
            return LayerWriter(out).finish().diff_id
        return write_layer(self._directory, out, lowers=self._lowers).diff_id
