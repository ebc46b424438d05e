"""What a build leaves to its outputs: the image of each platform and how it came about. Values only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from registry_client.oci.digest import digest_of
from registry_client.oci.platform import host_platform, rank
from registry_client.values import field, frozen

if TYPE_CHECKING:
    from builder.attest.statement import Attestation
    from builder.graph import StageGraph
    from builder.request import BuildRequest
    from builder.state import State
    from registry_client.oci.digest import Digest
    from registry_client.oci.platform import Platform
    from runtime.images.image import Image


@frozen
class Built:
    """The image of one platform, its graph, and what each vertex of it yielded."""

    image: Image
    graph: StageGraph
    states: Mapping[Digest, State]
    cached: bool
    stored: bool = True  # False: it is pushed, and not among the store's images

    @property
    def platform(self) -> Platform:
        return self.image.config.platform


def native(built: Sequence[Built]) -> Built:
    """The one a name in the store means: what this host runs best, else the first."""
    host = host_platform()
    ranked = [(rank(host, each.platform), number) for number, each in enumerate(built)]
    return built[min(((score, number) for score, number in ranked if score is not None), default=(0, 0))[1]]


@frozen(kw_only=True)
class Occasion:
    """What all platforms of one build share: what was asked, from where, when. `invocation` is the build's own name.

    `context_key` names the cache record of a context that was fetched; "" is a directory.
    """

    request: BuildRequest
    dockerfile: bytes
    dockerfile_name: str
    context_key: str
    epoch: int | None
    started_ns: int
    invocation: str
    boms: Mapping[Digest, tuple[Attestation, ...]] = field(default_factory=dict)  # by image, of a generator
    # By image, what a bill of material looks at beside it, by name: stages and the context.
    looked_at: Mapping[Digest, tuple[tuple[str, Image], ...]] = field(default_factory=dict)


def invocation_of(built: Sequence[Built], epoch: int | None) -> str:
    """A build's own name, 32 hex digits; with an epoch the same build has the same, to be attested by the same bytes."""
    if epoch is None:
        return os.urandom(16).hex()
    roots = "\n".join(each.graph.root.digest for each in built)
    return digest_of(roots.encode()).partition(":")[2][:32]
