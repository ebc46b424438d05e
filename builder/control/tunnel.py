"""A connection carried in the messages of a call (`Control.Session`): a socket whose other end is the stream."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builder.control.messages.common import Bytes
from runtime.grpc.status import GrpcError
from runtime.grpc.stream import Stream

_PIECE = 32 << 10


@contextmanager
def tunnelled(stream: Stream) -> Iterator[socket.socket]:
    """The socket; it is at its end when the call is, and the other way round."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threads = [
            threading.Thread(target=pump, args=(stream, theirs), name="tunnel", daemon=True)
            for pump in (_from_call, _to_call)
        ]
        with stream.cancel.on_cancel(lambda: shut(theirs)):
            for thread in threads:
                thread.start()
            try:
                yield ours
            finally:
                shut(ours)
                stream.break_off()
                for thread in threads:
                    thread.join()


def _from_call(stream: Stream, sock: socket.socket) -> None:
    with suppress(GrpcError, OSError):
        for piece in stream.messages(Bytes):
            sock.sendall(piece.data)
    shut(sock)


def _to_call(stream: Stream, sock: socket.socket) -> None:
    with suppress(GrpcError, OSError):
        while data := sock.recv(_PIECE):
            stream.write(Bytes(data))


def shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
