"""A spawner within the process that owns it, for a process that has one thread and a loop of its own (a shim).

It saves a process per container. Whoever uses it watches `fileno()` and calls `turn()` when that is readable; calls
that wait, like `create`, serve meanwhile. The same rules hold as in the spawner: one thread, and no descriptor that a
child must not have without close-on-exec.
"""

from __future__ import annotations

import os
import select
import socket
import time

from runtime.sandbox import wire
from runtime.sandbox.plan import Json
from runtime.sandbox.server import Server
from runtime.sandbox.spawner import Process, Starting


class EmbeddedProcess(Process):
    def __init__(self, line: socket.socket, server: Server) -> None:
        super().__init__(line)
        self._server = server

    def _readable(self, seconds: float | None) -> bool:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not select.select([self._line], [], [], 0)[0]:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._server.turn(left)
        return True


class Embedded(Starting):
    """What a shim uses of `Spawner`: create and join."""

    def __init__(self) -> None:
        self._line, self._unused = socket.socketpair()
        self._server = Server(self._line)

    def fileno(self) -> int:
        return self._server.poll.fileno()

    def turn(self) -> None:
        """Do what is ready."""
        self._server.turn(0)

    def _request(self, message: Json, stdio: tuple[int, int, int]) -> Process:
        ours, theirs = wire.packet_pair()
        given, places = wire.numbered(stdio)
        fds = [theirs.detach(), *map(os.dup, given)]
        try:
            self._server.serve_one({**message, "stdio": places}, fds)
        finally:
            for descriptor in fds:
                if descriptor >= 0:
                    os.close(descriptor)
        return EmbeddedProcess(ours, self._server)

    def close(self) -> None:
        """Kill what is left."""
        self._server.end()
        self._line.close()
        self._unused.close()

    def __enter__(self) -> Embedded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
