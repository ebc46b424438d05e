"""fsutil's packets: how a directory goes over a stream, `moby.filesync.v1`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from runtime.grpc.protobuf import RAW, Message, integer, mapping, raw, sub, text

# Go's os.FileMode, which is what `mode` is: the type in high bits, and three of Unix's.
DIRECTORY, SYMLINK, DEVICE, PIPE, SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
SETUID, SETGID, CHARACTER, STICKY, IRREGULAR = 1 << 23, 1 << 22, 1 << 21, 1 << 20, 1 << 19
TYPE = DIRECTORY | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTER | IRREGULAR


class PacketType(IntEnum):
    STAT = 0  # an entry, in order; without one: that was all
    REQUEST = 1  # send the content of the entry with this number
    DATA = 2  # a piece of it; an empty one: that was all
    END = 3
    ERROR = 4


@dataclass(slots=True)
class Stat(Message):
    """`modified` is nanoseconds since 1970."""

    path: str = text(1)
    mode: int = integer(2)
    uid: int = integer(3)
    gid: int = integer(4)
    size: int = integer(5)
    modified: int = integer(6)
    link: str = text(7)  # of a symbolic link its text; of another file: the path it is a hard link to
    major: int = integer(8)
    minor: int = integer(9)
    attributes: dict[str, bytes] = mapping(10, RAW)


@dataclass(slots=True)
class Packet(Message):
    type: int = integer(1)
    stat: Stat | None = sub(2, lambda: Stat)
    id: int = integer(3)
    data: bytes = raw(4)
