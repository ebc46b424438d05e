"""A TLS connection as a plain socket that one thread may read while others write.

OpenSSL allows one call at a time on a connection, and HTTP/2 needs both directions at once. So one thread owns the
encrypted side, never blocks in it, and moves bytes between it and a socket pair.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 256 << 10
_AHEAD = 1 << 20  # bytes held for a side that does not take them


@contextmanager
def plain(sock: socket.socket) -> Iterator[socket.socket]:
    """`sock` itself, or of a TLS connection its plain side for the length of the block."""
    if not isinstance(sock, ssl.SSLSocket):
        yield sock
        return
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=_carry, args=(sock, theirs), name="tls", daemon=True)
    thread.start()
    try:
        with ours:
            yield ours
    finally:
        thread.join()


def _carry(encrypted: ssl.SSLSocket, theirs: socket.socket) -> None:
    """Until either side has ended and what it said was passed on."""
    with theirs, suppress(OSError):
        encrypted.setblocking(False)
        theirs.setblocking(False)
        inward, outward = _Way(encrypted, theirs), _Way(theirs, encrypted)
        while not (inward.is_over or outward.is_over):
            # Both are tried each time: bytes that were decrypted already make no socket readable.
            if inward.move() | outward.move():
                continue
            reading = [way.source for way in (inward, outward) if way.reads]
            writing = [way.target for way in (inward, outward) if way.held]
            select.select(reading, writing, [])
    with suppress(OSError):
        encrypted.shutdown(socket.SHUT_RDWR)  # closing it is somebody else's


class _Way:
    """One direction. `held` are bytes the target did not take yet."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.held = b""
        self._ended = False

    @property
    def reads(self) -> bool:
        return not self._ended and len(self.held) < _AHEAD

    @property
    def is_over(self) -> bool:
        return self._ended and not self.held

    def move(self) -> bool:
        """Whether anything moved."""
        return self._read() | self._write()

    def _read(self) -> bool:
        if not self.reads:
            return False
        try:
            data = self.source.recv(_PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (ssl.SSLError, ConnectionError):
            data = b""  # it ended without saying so
        self._ended = not data
        self.held += data
        return True

    def _write(self) -> bool:
        if not self.held:
            return False
        try:
            sent = self.target.send(self.held)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        self.held = self.held[sent:]
        return True
