"""Which namespaces a container shares: the modes of its spec turned into paths below /proc."""

from __future__ import annotations

from collections.abc import Callable

from registry_client.values import frozen
from runtime.containers.container import Container
from runtime.containers.spec import ContainerSpec
from runtime.errors import Conflict


@frozen
class Spaces:
    """ "" is a new namespace, "host" the host's, else the path of one to join."""

    network: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""


def resolve_namespaces(spec: ContainerSpec, other: Callable[[str], Container]) -> Spaces:
    """`container:NAME` is looked up now: that container has to run."""
    return Spaces(
        network=_resolve(spec.network_mode, "net", other),
        pid=_resolve(spec.pid_mode, "pid", other),
        ipc=_resolve(spec.ipc_mode, "ipc", other),
        uts="host" if spec.uts_mode == "host" else "",
        cgroup="host" if spec.cgroupns_mode == "host" else "",
    )


def _resolve(mode: str, kind: str, other: Callable[[str], Container]) -> str:
    if mode == "host":
        return "host"
    if not mode.startswith("container:"):
        return ""
    neighbour = other(mode.removeprefix("container:"))
    if not neighbour.state.pid:
        raise Conflict(f"container {neighbour.name} does not run: its {kind} namespace cannot be joined")
    if kind == "ipc" and neighbour.spec.ipc_mode in ("private", "none"):
        raise Conflict(
            f"the ipc namespace of {neighbour.name} is {neighbour.spec.ipc_mode}",
            hint="start it with --ipc shareable",
        )
    return f"/proc/{neighbour.state.pid}/ns/{kind}"
