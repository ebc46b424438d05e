"""The noun of this room: a container, as it was asked for and as it is."""

from __future__ import annotations

from registry_client.oci.config import ContainerConfig
from registry_client.values import frozen
from runtime.containers.spec import ContainerSpec, ExitStatus
from runtime.containers.state import State


@frozen(kw_only=True)
class PlacedMount:
    """A mount with its source decided. `source` is an absolute path, or what the file system `type` takes."""

    kind: str  # bind, volume, tmpfs, image: as it was asked for
    target: str
    type: str  # bind, or a file system
    source: str = ""
    volume: str = ""
    options: tuple[str, ...] = ()
    readonly: bool = False


@frozen(kw_only=True)
class Container:
    """A value: `state` is how it was when this was read."""

    id: str
    name: str
    image: str  # image id
    image_name: str
    snapshot: str
    created: float
    spec: ContainerSpec
    image_config: ContainerConfig
    mounts: tuple[PlacedMount, ...]
    state: State
    directory: str

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def running(self) -> bool:
        return self.state.alive

    @property
    def exit(self) -> ExitStatus:
        return ExitStatus(code=self.state.code, oom_killed=self.state.oom_killed, error=self.state.error)

    @property
    def health(self) -> str:
        """ "", starting, healthy or unhealthy."""
        return str(self.state.health["status"]) if self.state.health else ""

    @property
    def log_path(self) -> str:
        return f"{self.directory}/log.json"

    @property
    def cgroup(self) -> str:
        return cgroup_path(self.spec, self.id)

    @property
    def networked(self) -> bool:
        """Whether it has a network namespace with interfaces of its own."""
        mode = self.spec.network_mode
        return mode not in ("none", "host") and not mode.startswith("container:")


def cgroup_path(spec: ContainerSpec, identifier: str) -> str:
    """Below `--cgroup-parent`, else below our own."""
    return f"{spec.cgroup_parent.strip('/') or 'pipe'}/{identifier}"
