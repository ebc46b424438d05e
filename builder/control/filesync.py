"""Files from the client: fsutil's protocol, we being the one that receives.

The client walks its directory and sends a packet for every entry, in order; we ask for the contents we do not have. What
is here already with the same size, time and mode is not asked for, so of a directory that is kept only changes travel.
At most some dozens of contents are on their way at a time: the client stops listening when too many are asked for.

Nothing a client sends gets out of the directory: a path is taken apart, and every parent has to be a directory of this
very transfer.
"""

from __future__ import annotations

import os
import stat as modes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import IO

from builder.control.messages import files
from builder.control.messages.files import Packet, PacketType, Stat
from runtime.errors import HostFault, InvalidInput
from runtime.grpc.stream import Stream
from runtime.store.durable import remove_tree

PATH = "/moby.filesync.v1.FileSync/DiffCopy"
_ON_THE_WAY, _TOGETHER = 64, 16  # contents asked for and not here yet; asked for in one go
_LONGEST = 4096
_ENTRY = 64  # bytes an entry counts for, in what is told
_STEP = 256 << 10  # bytes between two tellings
_SMALL = 16 << 20  # bytes; nothing that is read into memory is larger
_KINDS = (
    (files.DIRECTORY, modes.S_IFDIR),
    (files.SYMLINK, modes.S_IFLNK),
    (files.PIPE, modes.S_IFIFO),
    (files.SOCKET, modes.S_IFSOCK),
    (files.DEVICE | files.CHARACTER, modes.S_IFCHR),
    (files.DEVICE, modes.S_IFBLK),
)
_BITS = ((files.SETUID, modes.S_ISUID), (files.SETGID, modes.S_ISGID), (files.STICKY, modes.S_ISVTX))
Told = Callable[[int], None]  # bytes received so far


def unix_mode(mode: int) -> int:
    """Go's file mode as the kernel's."""
    kind = next((ours for theirs, ours in _KINDS if mode & theirs == theirs), modes.S_IFREG)
    return kind | mode & 0o777 | sum(ours for theirs, ours in _BITS if mode & theirs)


def go_mode(mode: int) -> int:
    """The kernel's file mode as Go's."""
    kind = next((theirs for theirs, ours in _KINDS if modes.S_IFMT(mode) == ours), 0)
    return kind | mode & 0o777 | sum(theirs for theirs, ours in _BITS if mode & ours)


def metadata(
    name: str, *, exclude: Iterable[str] = (), include: Iterable[str] = (), follow: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """What a transfer is asked for with: the client's name of a directory, and patterns."""
    found: list[tuple[str, str]] = []
    for key, values in (
        ("dir-name", (name,)), ("exclude-patterns", exclude), ("include-patterns", include), ("followpaths", follow),
    ):  # fmt: skip
        values = list(values)
        if not all(value.isascii() and value.isprintable() for value in values):
            from urllib.parse import quote_plus

            values = [quote_plus(value, errors="surrogateescape") for value in values]
            found.append((f"{key}-encoded", "1"))
        found += [(key, value) for value in values]
    return found


def receive_files(stream: Stream) -> dict[str, bytes | str]:
    """A few small files at once, in memory: contents by path, and of symbolic links the text."""
    found: dict[str, bytes | str] = {}
    paths: list[str] = []
    parts: dict[int, list[bytes]] = {}
    all_told = False
    for packet in _packets(stream):
        stat = packet.stat
        if packet.type == PacketType.DATA and packet.data:
            parts[packet.id].append(packet.data)
        elif packet.type == PacketType.DATA:
            found[paths[packet.id]] = b"".join(parts.pop(packet.id))
        elif stat is None:
            all_told = True
        else:
            paths.append(stat.path)
            if stat.mode & files.SYMLINK:
                found[stat.path] = stat.link
            elif not stat.mode & files.TYPE and stat.size <= _SMALL:
                parts[len(paths) - 1] = []
                stream.write(Packet(PacketType.REQUEST, id=len(paths) - 1))
        if all_told and not parts:
            stream.write(Packet(PacketType.END))
    return found


def _packets(stream: Stream) -> Iterator[Packet]:
    """Until the client agrees that it is over."""
    for packet in stream.messages(Packet):
        if packet.type == PacketType.ERROR:
            raise InvalidInput(f"the client cannot send its files: {packet.data.decode(errors='replace')}")
        if packet.type == PacketType.END:
            stream.end_sending()
            return
        yield packet
    raise InvalidInput("the client stopped in the middle of sending its files")


class Receiver:
    """Makes `root` what the client's directory is."""

    def __init__(self, stream: Stream, root: str, told: Told = lambda size: None) -> None:
        self._stream, self._root, self._told = stream, root, told
        self._known = dict(_walk(root))
        self._sent: dict[str, Stat] = {}  # what the client has, by path
        self._paths: list[str] = []  # by number
        self._directories = {""}
        self._links: list[Stat] = []
        self._wanted: deque[int] = deque()
        self._open: dict[int, IO[bytes] | None] = {}
        self._touched: set[str] = set()  # directories whose own time has to be set again
        self._received = 0
        self._all_told = False

    def run(self) -> None:
        try:
            self._run()
        except OSError as error:
            raise HostFault(f"cannot keep the client's files: {error.strerror or error}") from error
        except (OverflowError, ValueError) as error:
            raise InvalidInput(f"the client's files cannot be kept here: {error}") from error

    def _run(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._close)
            for packet in _packets(self._stream):
                self._tell(len(packet.data) + _ENTRY)
                self._take(packet)
                if not self._stream.has_more or len(self._wanted) >= _TOGETHER:
                    self._ask()
                if self._all_told and not self._open and not self._wanted:
                    self._all_told = False
                    self._finish()
                    self._told(self._received)
                    self._stream.write(Packet(PacketType.END))

    def _tell(self, size: int) -> None:
        before = self._received // _STEP
        self._received += size
        if self._received // _STEP != before:
            self._told(self._received)

    def _close(self) -> None:
        for file in self._open.values():
            if file is not None:
                file.close()

    def _take(self, packet: Packet) -> None:
        if packet.type == PacketType.DATA:
            self._write(packet.id, packet.data)
        elif packet.type == PacketType.STAT and packet.stat is None:
            self._all_told = True
        elif packet.type == PacketType.STAT and packet.stat is not None:
            self._paths.append(packet.stat.path)
            self._entry(packet.stat, len(self._paths) - 1)

    # --- entries ------------------------------------------------------------------------------------------------------

    def _entry(self, stat: Stat, number: int) -> None:
        self._check(stat.path)
        self._sent[stat.path] = stat
        mode = unix_mode(stat.mode)
        if modes.S_ISDIR(mode):
            self._directories.add(stat.path)
        if stat.link and not modes.S_ISLNK(mode):
            self._links.append(stat)
            return
        known = self._known.get(stat.path)
        if known is not None and self._is_same(stat, mode, known):
            return
        if known is None or not (modes.S_ISDIR(mode) and modes.S_ISDIR(known.st_mode)):
            self._remove(stat.path, known)
        self._touched.add(os.path.dirname(stat.path))
        if modes.S_ISREG(mode):
            self._wanted.append(number)
        else:
            self._make(stat, mode)

    def _check(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        if (
            path.startswith("/")
            or not name
            or name in (".", "..")
            or "\0" in path
            or len(path) > _LONGEST
            or path in self._sent
        ):
            raise InvalidInput(f"the client sent the path {path!r}")
        if parent not in self._directories:
            raise InvalidInput(f"the client sent {path!r}, whose parent is no directory")

    def _is_same(self, stat: Stat, mode: int, known: os.stat_result) -> bool:
        if known.st_mode != mode:
            return False
        if modes.S_ISDIR(mode):
            if known.st_mtime_ns != stat.modified:
                self._touched.add(stat.path)
            return True
        if modes.S_ISLNK(mode):
            return os.readlink(self._place(stat.path)) == stat.link
        if modes.S_ISFIFO(mode):
            return known.st_mtime_ns == stat.modified
        return modes.S_ISREG(mode) and known.st_size == stat.size and known.st_mtime_ns == stat.modified

    def _remove(self, path: str, known: os.stat_result | None) -> None:
        if known is None:
            return
        if modes.S_ISDIR(known.st_mode):
            remove_tree(self._place(path))
            below = f"{path}/"
            for each in [each for each in self._known if each.startswith(below)]:
                del self._known[each]
        else:
            os.unlink(self._place(path))
        del self._known[path]

    def _make(self, stat: Stat, mode: int) -> None:
        place = self._place(stat.path)
        if modes.S_ISDIR(mode):
            if stat.path not in self._known:
                os.mkdir(place, 0o700)
            self._touched.add(stat.path)
        elif modes.S_ISLNK(mode):
            os.symlink(stat.link, place)
            _set_time(place, stat)
        elif not modes.S_ISSOCK(mode):
            os.mknod(place, mode, os.makedev(stat.major, stat.minor))
            self._dress(stat)

    # --- contents -----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        asked = []
        while self._wanted and len(self._open) < _ON_THE_WAY:
            number = self._wanted.popleft()
            self._open[number] = None
            asked.append(Packet(PacketType.REQUEST, id=number))
        if asked:
            self._stream.write(*asked)

    def _write(self, number: int, data: bytes) -> None:
        if number not in self._open:
            raise InvalidInput(f"the client sent content {number}, which nobody asked for")
        file = self._open[number]
        try:
            if file is None:
                file = self._open[number] = self._create(self._paths[number])
            if data:
                file.write(data)
                return
            file.close()
        except OSError as error:
            raise HostFault(f"cannot keep {self._paths[number]}: {error.strerror}") from error
        del self._open[number]
        self._dress(self._sent[self._paths[number]])

    def _create(self, path: str) -> IO[bytes]:
        """A new file: what is there already may be part of something else, or half of what it should be."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return open(os.open(self._place(path), flags, 0o600), "wb", buffering=0)

    def _dress(self, stat: Stat) -> None:
        """Mode, attributes and, last of all, the time, which says that the content is complete."""
        place = self._place(stat.path)
        for name, value in stat.attributes.items():
            if name.startswith("user.") or name == "security.capability":
                try:
                    os.setxattr(place, name, value, follow_symlinks=False)
                except OSError:
                    pass  # a file system without them, as with BuildKit
        os.chmod(place, modes.S_IMODE(unix_mode(stat.mode)))
        _set_time(place, stat)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._remove_others()
        for stat in self._links:
            self._link(stat)
        # Deepest first: what happens in a directory changes the time of the one it is in.
        for path in sorted(self._touched & self._sent.keys(), key=lambda path: path.count("/"), reverse=True):
            self._dress(self._sent[path])

    def _remove_others(self) -> None:
        for path in sorted(self._known.keys() - self._sent.keys()):
            if path in self._known:  # not gone with a directory above it
                self._remove(path, self._known[path])
                self._touched.add(os.path.dirname(path))

    def _link(self, stat: Stat) -> None:
        first = self._sent.get(stat.link)
        if first is None or first.mode & files.TYPE or first.link:
            raise InvalidInput(f"the client sent {stat.path!r} as a link to {stat.link!r}, which is no file")
        place, target = self._place(stat.path), self._place(stat.link)
        known = self._known.get(stat.path)
        if known is not None and known.st_ino == os.lstat(target).st_ino:
            return
        self._remove(stat.path, known)
        os.link(target, place, follow_symlinks=False)
        self._touched.add(os.path.dirname(stat.path))

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}"


def _set_time(place: str, stat: Stat) -> None:
    os.utime(place, ns=(stat.modified, stat.modified), follow_symlinks=False)


def _walk(root: str, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """What is here, parents first."""
    with os.scandir(os.path.join(root, below)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{below}/{entry.name}" if below else entry.name
        yield path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)
