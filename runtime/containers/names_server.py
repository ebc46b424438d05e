"""The process that answers a container's questions for names, 127.0.0.11; forked beside the shim and ended with it.

Not a part of the shim: that one forks, so it must not have threads (the resolver does), and it stays small.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any


def main(argument: dict[str, Any], fds: list[int]) -> int:
    """`fds` are the two sockets in the container's network namespace; it serves until the shim has ended."""
    from runtime.networks.records import NetworkRecords
    from runtime.networks.resolver import Resolver
    from runtime.store.database import Database

    try:
        shim = os.pidfd_open(argument["shim"])
    except ProcessLookupError:
        return 0
    sockets = (socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))
    database = Database(os.path.join(argument["root"], "pipe.db"))
    resolver = Resolver(sockets, NetworkRecords(database), argument["id"], tuple(argument["servers"]))
    resolver.start()
    select.select([shim], [], [])
    resolver.close()
    database.close()
    return 0
