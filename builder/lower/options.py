"""What lowering is told from outside, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry_client.oci.config import ImageConfig
from registry_client.oci.platform import Platform, host_platform
from registry_client.values import field, frozen
from runtime.spans import Span

if TYPE_CHECKING:
    from builder.policy import SourcePolicy


@frozen(kw_only=True)
class LowerOptions:
    """The flags of a build that change what a Dockerfile means.

    `contexts` are named contexts as given on the command line: a path, a URL, `docker-image://…` or `oci-layout://…`;
    those that are directories are lowered to `LocalSource(name)`. `platform` None takes the host's and lets a base image
    of another platform decide.
    """

    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    build_platform: Platform = field(default_factory=host_platform)
    contexts: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    network: str = "default"
    multi_platform: bool = False  # several results: labels name the platform
    policy: SourcePolicy | None = None

    @property
    def target_platform(self) -> Platform:
        return self.platform or self.build_platform


@frozen
class BaseWanted:
    """An image a reachable stage needs: canonical reference (or `oci-layout://…`), for a platform, and who asks."""

    reference: str
    platform: Platform
    span: Span | None = field(default=None, compare=False)


@frozen
class ResolvedBase:
    """The answer: `digest` is the manifest's, or the image id of an image that was only built here."""

    digest: str
    config: ImageConfig
