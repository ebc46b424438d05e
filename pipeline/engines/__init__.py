"""What a pipeline needs of an engine. `local` is the one in this process; a remote Docker API would be another.

Times are seconds, images are ids. Everything blocks; everything that may take long is given the cancel token and ends
with it. Output comes as bytes from the engine's own threads, and has all been delivered when `wait` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Protocol

from registry_client.oci.config import Healthcheck
from registry_client.values import field, frozen
from runtime.cancel import Cancel
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus, NetworkAttachment

if TYPE_CHECKING:
    from builder.sharing.wanted import CacheFrom, CacheTo
    from builder.ssh import AgentWanted

OnOutput = Callable[[str, bytes], None]  # stream ("stdout", "stderr"), data


@frozen(kw_only=True)
class BuildOrder:
    """One image of the pipeline, ready to build: everything resolved, paths absolute."""

    name: str
    node: str
    context: str
    dockerfile: str | None = None
    dockerfile_inline: str = ""
    target: str = ""
    args: tuple[tuple[str, str | None], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    contexts: tuple[tuple[str, str], ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict, hash=False, repr=False)
    ssh: Mapping[str, AgentWanted] = field(default_factory=dict, hash=False)
    network: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    no_cache: bool = False
    cache_from: tuple[CacheFrom, ...] = ()
    cache_to: tuple[CacheTo, ...] = ()
    rewrite_timestamp: bool = False
    pull: bool = False


@frozen
class BuiltImage:
    id: str
    cached: bool = False


@frozen
class ImageFacts:
    """What the pipeline asks of an image: its identity, and whether it brings a health check."""

    id: str
    healthcheck: Healthcheck | None = None
    env: tuple[str, ...] = ()
    user: str = ""


@frozen
class ContainerState:
    """`health` is "", starting, healthy or unhealthy."""

    id: str
    name: str
    status: str  # created, running, paused, restarting, exited
    exit_code: int = 0
    health: str = ""
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    addresses: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: tuple[tuple[str, int, int], ...] = ()  # (host address, host port, container port)
    log_tail: str = ""

    @property
    def running(self) -> bool:
        return self.status in ("running", "paused", "restarting")


class Engine(Protocol):
    """One host that builds images and runs containers."""

    def build(self, order: BuildOrder, cancel: Cancel) -> BuiltImage: ...

    def image(self, name: str, pull: str, cancel: Cancel, platform: str = "") -> ImageFacts:
        """Resolve a reference or an id; `pull` is missing, always or never."""
        ...

    def tag(self, image_id: str, reference: str) -> None: ...

    def push(self, reference: str, cancel: Cancel) -> str:
        """Send the tagged image to its registry; the digest of its manifest."""
        ...

    def create(self, spec: ContainerSpec) -> str: ...

    def start(self, container_id: str, output: OnOutput | None = None) -> None: ...

    def wait(self, container_id: str, timeout: float | None = None) -> ExitStatus | None:
        """None: it still runs after `timeout`."""
        ...

    def stop(self, container_id: str, timeout: float) -> None: ...

    def kill(self, container_id: str, signal: int) -> None: ...

    def remove(self, container_id: str, *, volumes: bool = True) -> None:
        """Gone afterwards, whatever state it was in; no error when it is gone already."""
        ...

    def rename(self, container_id: str, name: str) -> None: ...

    def state(self, container_id: str) -> ContainerState | None: ...

    def containers(self, labels: Mapping[str, str]) -> list[ContainerState]: ...

    def logs(self, container_id: str, tail: int = 50) -> bytes: ...

    def execute(self, container_id: str, spec: ExecSpec, output: OnOutput | None = None) -> int: ...

    def copy_out(self, container_id: str, path: str) -> AbstractContextManager[BinaryIO]:
        """A tar stream of `path`, named from its last component; NotFound when there is none."""
        ...

    def copy_in(self, container_id: str, directory: str, archive: BinaryIO) -> None:
        """Unpack a tar in a directory of the container."""
        ...

    def connect(self, container_id: str, attachment: NetworkAttachment) -> None: ...

    def network(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        internal: bool = False,
        subnet: str = "",
        gateway: str = "",
    ) -> None:
        """Make a network unless it is there."""
        ...

    def remove_network(self, name: str) -> None: ...

    def networks(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Names and labels of those that have these labels."""
        ...

    def volume(self, name: str, *, labels: Mapping[str, str], options: Mapping[str, str]) -> None:
        """Make a volume unless it is there."""
        ...

    def remove_volume(self, name: str) -> None: ...

    def volumes(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Names and labels of those that have these labels."""
        ...
