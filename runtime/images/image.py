"""What an image is to the rest of us. Values only."""

from __future__ import annotations

from registry_client.oci.config import ImageConfig
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.values import frozen


@frozen
class Layer:
    """`descriptor` names the compressed blob it came as or was pushed as, if there is or was one."""

    diff_id: Digest
    descriptor: Descriptor | None = None


@frozen
class Image:
    """`id` is the digest of `raw_config`. `tags` are canonical references; `repo_digests` are `name@digest`."""

    id: Digest
    config: ImageConfig
    raw_config: bytes
    layers: tuple[Layer, ...]
    manifest_digest: Digest | None = None
    tags: tuple[str, ...] = ()
    size: int = 0
    created: str = ""
    repo_digests: tuple[str, ...] = ()

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def short_id(self) -> str:
        return self.id.partition(":")[2][:12]


@frozen
class Untagged:
    reference: str


@frozen
class Deleted:
    digest: str  # an image id


Removed = Untagged | Deleted
