"""Start the process that answers a container's questions for names (see `names_server`)."""

from __future__ import annotations

from runtime.containers.container import Container
from runtime.sandbox.spawner import Spawner
from runtime.sandbox_errors import translated

NAMES_SERVER = "runtime.containers.names_server:main"


def serve_names(spawner: Spawner, root: str, container: Container, pid: int, shim: int) -> None:
    """A name server in the network namespace of `pid`, for as long as the process `shim` lives."""
    from runtime.networks.listening import name_server_sockets
    from runtime.sandbox import netns

    sockets = netns.inside_of(pid, name_server_sockets)
    try:
        argument = {"root": root, "id": container.id, "shim": shim, "servers": list(container.spec.dns)}
        with translated():
            spawner.shim(NAMES_SERVER, argument, [one.fileno() for one in sockets])
    finally:
        for one in sockets:
            one.close()
