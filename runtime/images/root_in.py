"""Make an image from the tar of a root file system (`docker import`; FEATURES C-8).

The tar's own bytes are not kept: the layer is what it unpacks to, written anew as any layer we built.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from registry_client.oci.config import ContainerConfig, History, ImageConfig, dump_config
from registry_client.oci.platform import host_platform
from runtime.images.image import Image

if TYPE_CHECKING:
    from runtime.images.images import Images


def import_root(
    images: Images, stream: BinaryIO, config: ContainerConfig, comment: str, created: str
) -> Image:
    from runtime.store.layers import apply_layer, decompress, hash_layer

    snapshots = images.store.snapshots
    with snapshots.prepare() as draft:
        apply_layer(decompress(stream), draft.upper)
        # A root file system has no mode of `/` of its own in the layer.
        os.chmod(draft.upper, 0o755)
        info = hash_layer(draft.upper)
        snapshot = draft.commit(diff_id=info.diff_id, size=info.size)
    raw = dump_config(
        ImageConfig(
            platform=host_platform(),
            config=config,
            diff_ids=(info.diff_id,),
            history=(History(created=created, comment=comment or "imported"),),
            created=created,
        )
    )
    return images.add_built(raw, [(info.diff_id, snapshot.id)])
