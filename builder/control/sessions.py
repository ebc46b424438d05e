"""The connections on which clients offer their services: files, logins, secrets, agents.

A client opens one before it asks for a build and names it there; it ends with the build or with the client. Both may come
in either order, so a build waits a moment for its session.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from runtime.cancel import Cancel
from runtime.errors import Unavailable
from runtime.grpc import client
from runtime.grpc.connection import Connection
from runtime.grpc.protobuf import Message
from runtime.grpc.stream import Stream

log = logging.getLogger("pipe.control")
_PATIENCE = 15.0  # seconds until a session that was named must be there
_ANSWER = 60.0  # seconds a client has to answer a question; it may ask its user

Answer = TypeVar("Answer", bound=Message)


class Session:
    """One client. `shared_key` is its name for the directory it builds from."""

    def __init__(self, connection: Connection, name: str, shared_key: str, methods: Iterable[str]) -> None:
        self._connection = connection
        self.name, self.shared_key = name, shared_key
        self._methods = frozenset(method.lower() for method in methods)

    def offers(self, path: str) -> bool:
        return path.lower() in self._methods

    @property
    def gone(self) -> bool:
        return self._connection.closed

    def call(
        self, path: str, request: Message, answer: type[Answer], metadata: client.Metadata = ()
    ) -> Answer:
        """Ask the client; GrpcError with what it says instead of an answer."""
        return client.call(self._connection, path, request, answer, metadata=metadata, timeout=_ANSWER)

    @contextmanager
    def stream(
        self, path: str, metadata: client.Metadata = (), cancel: Cancel | None = None
    ) -> Iterator[Stream]:
        """A call that goes on; broken off at the end of the block if it has not ended, and when `cancel` is set."""
        stream = client.open_stream(self._connection, path, metadata)
        try:
            with (cancel or Cancel()).on_cancel(stream.break_off):
                yield stream
        finally:
            stream.break_off()

    def close(self) -> None:
        self._connection.close()


class Sessions:
    """Those that are open, by the name their client gave them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[str, Session] = {}

    def serve(
        self, sock: socket.socket, data: bytes, uuid: str, name: str, shared_key: str, methods: Iterable[str]
    ) -> None:
        """Be there for builds until the connection ends; at once, if there is a session of that name."""
        connection = Connection(sock, data=data)
        session = Session(connection, name, shared_key, methods)
        connection.start()
        with self._changed:
            if self._open.setdefault(uuid, session) is not session:
                log.warning("session %s is open already", uuid)
                return connection.close()
            self._changed.notify_all()
        try:
            connection.run()
        finally:
            with self._changed:
                del self._open[uuid]

    def get(self, uuid: str, cancel: Cancel) -> Session:
        """The session of that name; waits for it a little."""
        deadline = time.monotonic() + _PATIENCE
        with cancel.on_cancel(self._wake), self._changed:
            while uuid not in self._open:
                cancel.check()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unavailable(f"the client's session {uuid} is not there")
                self._changed.wait(left)
            return self._open[uuid]

    def close(self) -> None:
        with self._changed:
            for session in self._open.values():
                session.close()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
