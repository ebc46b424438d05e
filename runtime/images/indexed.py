"""An image with eStargz layers: the files it has here, in layers and so under an id of its own.

What is written behind a layer's tar belongs to its diff_id, so the config that goes out names other layers (as BuildKit's
does). Nothing of it is recorded: the image in the store stays what it is, and a later push sends it as ever.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import canonical_json
from registry_client.values import frozen, replace
from runtime.cancel import Cancel, Sink
from runtime.images.archive_in import store_config
from runtime.images.blobs import Made, Packing, for_each_layer, kept_forms, make_blob
from runtime.images.image import Image
from runtime.store.layers.estargz import FOOTER_SIZE, EStargz, table_digest, table_offset

if TYPE_CHECKING:
    from runtime.images.images import Images

_TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
_SIZE = "io.containers.estargz.uncompressed-size"


@frozen
class Indexed:
    """A layer as it goes out, and the diff_id it has there."""

    layer: Descriptor
    diff_id: Digest


def indexed_parts(
    images: Images, image: Image, packing: Packing, cancel: Cancel | None, made: Made
) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """As `blobs.parts_of`, but the config comes last: it is known when the layers are."""

    def pack(diff_id: Digest, chain_id: Digest) -> Indexed:
        found = _kept(images, diff_id, packing, cancel) or _made(images, diff_id, chain_id, packing, cancel)
        made(found.layer)
        return found

    layers = for_each_layer(image, pack)
    config = json.loads(image.raw_config)
    config["rootfs"]["diff_ids"] = [each.diff_id for each in layers]
    described = store_config(images.store, canonical_json(config))
    made(described)
    return described, tuple(each.layer for each in layers)


def _kept(images: Images, diff_id: Digest, packing: Packing, cancel: Cancel | None) -> Indexed | None:
    """A layer that stays as it came: a base's, unless forced, and one that is an eStargz already."""
    forms = kept_forms(images, diff_id)
    if not forms and (elsewhere := images.elsewhere.form(diff_id)) is not None:
        if not packing.force:
            return Indexed(elsewhere, diff_id)
        images.elsewhere.bring(elsewhere.digest, f"pull/{elsewhere.digest[:19]}", cancel)
        forms = kept_forms(images, diff_id)
    for form in forms:
        if form.media_type == media_types.OCI_LAYER or not images.records.came_as(form.digest):
            continue
        table = _table_digest(images, form)
        if table:
            return Indexed(replace(form, annotations={_TOC_DIGEST: table}), diff_id)
        if not packing.force:
            return Indexed(form, diff_id)
    return None


def _made(
    images: Images, diff_id: Digest, chain_id: Digest, packing: Packing, cancel: Cancel | None
) -> Indexed:
    tried: list[EStargz] = []

    def packer(sink: Sink) -> EStargz:
        tried.append(EStargz(sink, images.store.content.ingest, packing.level))
        return tried[-1]

    layer = make_blob(images, diff_id, chain_id, "gzip", packer, cancel)
    said = {_TOC_DIGEST: str(tried[-1].toc_digest), _SIZE: str(tried[-1].size)}
    return Indexed(replace(layer, annotations=said), tried[-1].diff_id)


def _table_digest(images: Images, blob: Descriptor) -> str:
    """The digest of the table of contents a blob carries; "" if it has none."""
    if blob.media_type != media_types.OCI_LAYER_GZIP or blob.size < FOOTER_SIZE:
        return ""
    with images.store.content.open(blob.digest) as file:
        file.seek(-FOOTER_SIZE, 2)
        offset = table_offset(file.read())
        if offset is None or offset >= blob.size:
            return ""
        file.seek(offset)
        return table_digest(file)
