"""Messages between an owner, its spawner and a container's first process: JSON, with descriptors beside it.

Two shapes. A *stream* carries requests of any size (a length, then the text); a *packet* socket carries reports, each
a whole message. Descriptors travel as SCM_RIGHTS and arrive close-on-exec.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
_ERRNO = struct.Struct("@q")  # what the helper, which knows no JSON, sends when exec fails
LIMIT = 64 << 20
_PACKET = 1 << 17
_MAX_FDS = 32
_FD_ROOM = socket.CMSG_SPACE(_MAX_FDS * 4)

dumps = json.JSONEncoder(separators=(",", ":")).encode


class Line(socket.socket):
    """A socket that closes when it is forgotten, and means to: its holder may live in a reference cycle."""

    def __del__(self) -> None:
        self.close()


def _pair(kind: socket.SocketKind) -> tuple[Line, Line]:
    first, second = socket.socketpair(socket.AF_UNIX, kind)
    return (
        Line(socket.AF_UNIX, kind, 0, fileno=first.detach()),
        Line(socket.AF_UNIX, kind, 0, fileno=second.detach()),
    )


def packet_pair() -> tuple[Line, Line]:
    return _pair(socket.SOCK_SEQPACKET)


def stream_pair() -> tuple[Line, Line]:
    return _pair(socket.SOCK_STREAM)


def _rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    if not fds:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4]))
    return fds


def numbered(stdio: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """The descriptors that are there, and where each stands in the request: the line itself is the first, 0 says "none"."""
    given = [descriptor for descriptor in stdio if descriptor >= 0]
    places = iter(range(1, len(given) + 1))
    return given, [next(places) if descriptor >= 0 else 0 for descriptor in stdio]


def send_request(stream: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """Send a whole request; the descriptors go with its first byte."""
    text = dumps(message).encode()
    data = memoryview(_LENGTH.pack(len(text)) + text)
    sent = stream.sendmsg([data], _rights(fds))
    if sent < len(data):
        stream.sendall(data[sent:])


def receive_request(stream: socket.socket) -> tuple[Any, list[int]] | None:
    """The next request, or None when the other side is gone. A message that is no JSON comes back as None itself."""
    header, ancillary, _, _ = stream.recvmsg(
        _LENGTH.size, _FD_ROOM, socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC
    )
    fds = _received(ancillary)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    text = _exactly(stream, length) if length <= LIMIT else None
    if text is None:
        for fd in fds:
            os.close(fd)
        return None
    try:
        return json.loads(text), fds
    except ValueError:
        return None, fds


def _exactly(stream: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = stream.recv(min(length - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def send_packet(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> bool:
    """Send one report. False, and rarely anybody wants to know: the other side is gone."""
    text = dumps(message).encode()
    if len(text) > _PACKET:
        raise ValueError(f"a report of {len(text)} bytes does not fit into a packet")
    try:
        sock.sendmsg([text], _rights(fds or []), socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive_packet(sock: socket.socket, flags: int = 0) -> tuple[dict[str, Any], list[int]] | None:
    """The next report, or None at the end. BlockingIOError with MSG_DONTWAIT when there is none yet."""
    try:
        data, ancillary, _, _ = sock.recvmsg(_PACKET, _FD_ROOM, flags | socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The other side went without reading everything of ours. That is told once, before what it last said.
        data, ancillary, _, _ = sock.recvmsg(_PACKET, _FD_ROOM, flags | socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    if len(data) == _ERRNO.size:
        return {"errno": _ERRNO.unpack(data)[0]}, []
    return json.loads(data), _received(ancillary)
