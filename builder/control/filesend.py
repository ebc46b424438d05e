"""Outputs to the client: an archive as a stream of bytes, a directory in fsutil's protocol, we being the one that sends."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator

from builder.control.filesync import go_mode
from builder.control.messages import files
from builder.control.messages.common import Bytes
from builder.control.messages.files import Packet, PacketType, Stat
from builder.control.sessions import Session
from runtime.cancel import Cancel
from runtime.errors import Unavailable, Unsupported
from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Stream

_PATH = "/moby.filesync.v1.FileSend/DiffCopy"
_NUMBER = "buildkit-attachable-exporter-id"
_PIECE = 32 << 10


def send_output(session: Session, number: int, path: str, cancel: Cancel) -> None:
    """What lies at `path` to the client's exporter of that number."""
    if not session.offers(_PATH):
        raise Unsupported("the client takes no files, which this output needs")
    try:
        with session.stream(_PATH, [(_NUMBER, str(number))], cancel) as stream:
            if os.path.isdir(path):
                _send_directory(stream, path)
            else:
                _send_file(stream, path)
    except GrpcError as error:
        cancel.check()
        if error.code is Code.ALREADY_EXISTS:
            return  # the client has it from an earlier build, and wants no other
        raise Unavailable(f"the client does not take its output: {error.message}") from None


def _send_file(stream: Stream, path: str) -> None:
    with open(path, "rb") as file:
        while data := file.read(_PIECE):
            stream.write(Bytes(data))
    stream.end_sending()
    while stream.receive() is not None:
        pass  # the client's end says that it has written everything


def _send_directory(stream: Stream, root: str) -> None:
    paths: list[str] = []
    for stat in _entries(root):
        paths.append(stat.path)
        stream.write(Packet(PacketType.STAT, stat))
    stream.write(Packet(PacketType.STAT))
    for packet in stream.messages(Packet):
        match packet.type:
            case PacketType.REQUEST:
                _send_content(stream, packet.id, os.path.join(root, paths[packet.id]))
            case PacketType.ERROR:
                raise Unavailable(
                    f"the client cannot write its output: {packet.data.decode(errors='replace')}"
                )
            case PacketType.END:
                stream.write(Packet(PacketType.END))
                stream.end_sending()


def _send_content(stream: Stream, number: int, path: str) -> None:
    with open(path, "rb") as file:
        while data := file.read(_PIECE):
            stream.write(Packet(PacketType.DATA, id=number, data=data))
    stream.write(Packet(PacketType.DATA, id=number))


def _entries(root: str, below: str = "", first: dict[int, str] | None = None) -> Iterator[Stat]:
    """Parents first, names in order; a further name of a file as a link to the first one."""
    first = {} if first is None else first
    with os.scandir(os.path.join(root, below)) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        path = f"{below}/{entry.name}" if below else entry.name
        status = entry.stat(follow_symlinks=False)
        yield _stat(path, entry.path, status, first)
        if modes.S_ISDIR(status.st_mode):
            yield from _entries(root, path, first)


def _stat(path: str, place: str, status: os.stat_result, first: dict[int, str]) -> Stat:
    stat = Stat(path, go_mode(status.st_mode), status.st_uid, status.st_gid, modified=status.st_mtime_ns)
    if modes.S_ISLNK(status.st_mode):
        stat.link = os.readlink(place)
    elif modes.S_ISREG(status.st_mode):
        stat.size = status.st_size
        if status.st_nlink > 1:
            known = first.setdefault(status.st_ino, path)
            stat.link = known if known != path else ""
    elif stat.mode & files.DEVICE:
        stat.major, stat.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    for name in os.listxattr(place, follow_symlinks=False):
        stat.attributes[name] = os.getxattr(place, name, follow_symlinks=False)
    return stat
