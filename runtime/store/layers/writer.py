"""Write a layer's tar, or only hash it, one entry after the other.

Entries come in one order, whoever feeds them: depth first, a directory before what is in it, within a directory the
opaque mark, then whiteouts, then the rest by the bytes of the name. So a copy that feeds the files as it writes them
gives the same diff_id as reading the finished directory does.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, Protocol

from registry_client.oci.digest import Digest
from registry_client.values import frozen
from runtime.errors import HostFault
from runtime.store.layers import header
from runtime.store.layers.header import NO_XATTRS

if TYPE_CHECKING:
    from runtime.store.layers.pipe import Hasher, Hashing

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_END = bytes(2 * header.BLOCK)
_ZEROS = bytes(header.BLOCK)
_BUFFER = 512 << 10


class Status(Protocol):
    """The part of `os.stat_result` a tar holds."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_dev(self) -> int: ...
    @property
    def st_rdev(self) -> int: ...


class Later(Protocol):
    """Files whose bytes are on their way: their headers, contents and paddings, in order."""

    def parts(self) -> list[bytes]: ...


@frozen
class DiffInfo:
    """A layer's tar: digest and size of its bytes, and how many entries it has."""

    diff_id: Digest
    size: int
    entries: int = 0


class LayerWriter:
    """Paths are bytes without a leading slash. With `epoch`, later modification times are set to it.

    `finish` or `close` it: from the first large piece of a file on the hash has a thread. With small ones the two would
    mostly wait for the interpreter.
    """

    def __init__(self, out: BinaryIO | None = None, *, epoch: int | None = None) -> None:
        self._out, self._epoch = out, epoch
        self.fault: OSError | None = (
            None  # of writing, which whoever reads the tree must not take for one of reading
        )
        self._hash: Hasher = hashlib.sha256()
        self._threaded: Hashing | None = None
        self._pending: list[bytes | Later] = []
        self._awaited = False  # some of it is not there yet
        self._pending_size = 0
        self._size = self.entries = 0
        self._first_names: dict[tuple[int, int], bytes] = {}
        self._remaining = self._padding = 0

    def add(
        self,
        path: bytes,
        status: Status,
        data: bytes | None = None,
        *,
        target: bytes = b"",
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> bool:
        """Add an entry: `data` of a regular file, `target` of a symbolic link. False for a socket, which is left out.

        A regular file without `data` must be followed by `write`s of all its bytes; `known_link` says beforehand
        whether it is another name of a file that was added already, which has no bytes.
        """
        mode, kind = status.st_mode, header.type_of(status.st_mode)
        if kind is None:
            return False
        device, size = (0, 0), 0
        if kind == header.REGULAR:
            if status.st_nlink > 1 and (first := self._linked(path, status)):
                kind, target = header.HARD_LINK, first
            else:
                size = status.st_size if data is None else len(data)
        elif kind == header.DIRECTORY:
            path += b"/"
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        mtime = status.st_mtime_ns // 1_000_000_000
        if self._epoch is not None and mtime > self._epoch:
            mtime = self._epoch
        block = header.header(
            path, kind, mode=mode & 0o7777, uid=status.st_uid, gid=status.st_gid, size=size, mtime=mtime,
            link=target, device=device, xattrs=xattrs,
        )  # fmt: skip
        self._begin(block, size)
        if data and kind == header.REGULAR:
            self.write(data)
        return True

    def add_file(self, path: bytes, mode: int, uid: int, gid: int, mtime_ns: int, data: bytes) -> None:
        """What `add` does, for a regular file with one name and no attributes: most are."""
        if self._remaining:
            raise ValueError(f"{self._remaining} bytes of the entry before are missing")
        self.entries += 1
        parts = self.file_parts(path, mode, uid, gid, mtime_ns, data)
        self._pending += parts
        self._pending_size += sum(map(len, parts))
        if self._pending_size >= _BUFFER:
            self._flush()

    def file_parts(
        self,
        path: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime_ns: int,
        data: bytes,
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> tuple[bytes, bytes, bytes]:
        """The header, content and padding of a regular file with one name."""
        mtime, size = mtime_ns // 1_000_000_000, len(data)
        if self._epoch is not None and mtime > self._epoch:
            mtime = self._epoch
        block = (
            header.header(
                path, header.REGULAR, mode=mode, uid=uid, gid=gid, size=size, mtime=mtime, xattrs=xattrs
            )
            if xattrs
            else header.file_header(path, mode, uid, gid, size, mtime)
        )
        return block, data, _ZEROS[: -size % header.BLOCK]

    def add_later(self, later: Later, entries: int, size: int) -> None:
        """Add `entries` regular files, of about `size` bytes with their headers, whose parts are asked for when they are needed."""
        if self._remaining:
            raise ValueError(f"{self._remaining} bytes of the entry before are missing")
        self.entries += entries
        self._pending.append(later)
        self._awaited = True
        self._pending_size += size
        if self._pending_size >= _BUFFER:
            self._flush()

    def flush(self) -> None:
        """Ask for all parts that are promised."""
        self._flush()

    def known_link(self, status: Status) -> bool:
        """Whether `add` would write this file as a hard link, without data."""
        return status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._first_names

    def _linked(self, path: bytes, status: Status) -> bytes | None:
        key = (status.st_dev, status.st_ino)
        first = self._first_names.setdefault(key, path)
        return None if first is path else first

    def whiteout(self, path: bytes) -> None:
        """Say that the lower layers' `path` is gone."""
        directory, slash, name = path.rpartition(b"/")
        self._mark(directory + slash + WHITEOUT + name)

    def opaque(self, directory: bytes) -> None:
        """Say that nothing of the lower layers is in `directory` (`b""` is the root)."""
        self._mark(directory + b"/" + OPAQUE if directory else OPAQUE)

    def _mark(self, path: bytes) -> None:
        self._begin(header.header(path, header.REGULAR, mode=0), 0)

    def _begin(self, block: bytes, size: int) -> None:
        if self._remaining:
            raise ValueError(f"{self._remaining} bytes of the entry before are missing")
        self.entries += 1
        self._remaining, self._padding = size, -size % header.BLOCK
        self._put(block)

    def write(self, chunk: bytes | memoryview) -> None:
        """The next bytes of the regular file that was added last."""
        self._remaining -= len(chunk)
        if self._remaining < 0:
            raise ValueError("more bytes than the entry's size")
        if len(chunk) >= _BUFFER:
            self._flush()
            if self._threaded is None:
                from runtime.store.layers.pipe import Hashing

                self._hash = self._threaded = Hashing(self._hash)
            self._pass_on(bytes(chunk))
        else:
            self._put(bytes(chunk))
        if not self._remaining and self._padding:
            self._put(bytes(self._padding))

    def _put(self, data: bytes) -> None:
        # Hashing and writing small pieces one by one costs more than joining them.
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            data = b"".join(self._parts() if self._awaited else self._pending)  # type: ignore[arg-type]
            self._pending.clear()
            self._awaited = False
            self._pending_size = 0
            self._pass_on(data)

    def _parts(self) -> list[bytes]:
        parts: list[bytes] = []
        for each in self._pending:
            if isinstance(each, bytes):
                parts.append(each)
            else:
                parts += each.parts()
        return parts

    def _pass_on(self, data: bytes) -> None:
        self._size += len(data)
        self._hash.update(data)
        if self._out is not None:
            try:
                self._out.write(data)
            except OSError as error:
                self.fault = error
                raise

    def finish(self) -> DiffInfo:
        """End the archive; its digest and size."""
        if self._remaining:
            raise HostFault(f"the last file of the layer is {self._remaining} bytes shorter than it was")
        self._put(_END)
        self._flush()
        return DiffInfo(Digest("sha256:" + self._hash.digest().hex()), self._size, self.entries)

    def close(self) -> None:
        """Nothing more will be written. Harmless after `finish`."""
        if self._threaded is not None:
            self._threaded.close()

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


# A layer that changes nothing: 1024 zero bytes.
EMPTY_LAYER = DiffInfo(Digest("sha256:" + hashlib.sha256(_END).hexdigest()), len(_END))


def order_key(path: bytes) -> list[bytes]:
    """Sorts paths into the order of a layer: whiteouts of a directory before its other entries."""
    return [b"\0" + part if part.startswith(WHITEOUT) else part for part in path.split(b"/")]
