"""Files of the snapshot an earlier run of a step left, which this run can have as hard links instead of copies.

A snapshot is never written to, so its files can be shared. A file is taken when it is what a copy would be: the same
data and attributes by digest, computed anew from the very bytes, and the same mode, owner and time. So nothing has to
be known about the earlier run but where it lies; a wrong guess costs time only. Where a whole stretch of files
(`operations.walking`) is as it was when that run copied it, by names and statuses, its copies need not be compared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from builder.content import NOTHING_STORED

if TYPE_CHECKING:
    from builder.operations.walking import Stretch

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOWHERE = -1


class Earlier:
    """The files of one snapshot's own layer. A context manager; not for several threads.

    `stretches` are those it was made of (`Style.as_copied`), `pieces` the lines that are stored of them.
    """

    def __init__(
        self,
        directory: str,
        stretches: frozenset[bytes] = frozenset(),
        pieces: Mapping[bytes, int] = NOTHING_STORED,
    ) -> None:
        self.stretches, self.pieces = stretches, pieces
        self._top, self._handle, self.place = directory, _NOWHERE, ""
        self._taken: set[int] = set()
        self._opened = 0

    def enter(self, directory: str) -> None:
        """The directory the next files are in. No link is followed on the way: it could lead out of the snapshot."""
        self.close()
        self.place = f"{self._top}/{directory}" if directory else self._top
        try:
            at = os.open(self._top, _DIRECTORY)
            for part in directory.split("/") if directory else ():
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=at)
                finally:
                    os.close(at)
                at = below
        except OSError:
            return
        self._handle = at

    def open(self, name: str, size: int, mode: int, uid: int, gid: int, mtime_ns: int) -> int | None:
        """The file of that name, for reading, if it looks as it should and no other file of this run is a link to it."""
        if self._handle == _NOWHERE:
            return None
        try:
            status = os.stat(name, dir_fd=self._handle, follow_symlinks=False)
            if (
                status.st_size != size
                or status.st_mode != stat.S_IFREG | mode
                or status.st_mtime_ns != mtime_ns
                or status.st_uid != uid
                or status.st_gid != gid
            ):
                return None
            # Files that were one there need not be one here.
            if status.st_nlink > 1 and status.st_ino in self._taken:
                return None
            self._opened = status.st_ino if status.st_nlink > 1 else 0
            return os.open(name, _FILE, dir_fd=self._handle)
        except OSError:
            return None

    def open_untouched(self, name: str) -> int | None:
        """The file of that name, of a stretch that was copied and is unchanged."""
        if self._handle == _NOWHERE:
            return None
        self._opened = 0
        try:
            return os.open(name, _FILE, dir_fd=self._handle)
        except OSError:
            return None

    def read_all(self, stretch: Stretch, limit: int) -> Iterator[tuple[str, int, int, bytes | None]]:
        """Name, mode and time of the files of such a stretch, with their data: None of what is no regular file, is not below
        `limit` bytes, cannot be had, or is not as long as it should be.
        """
        for name, mode, size, mtime_ns in stretch.entries():
            data = self._read(name, size) if size < limit and stat.S_ISREG(mode) else None
            yield name, mode, mtime_ns, data

    def _read(self, name: str, size: int) -> bytes | None:
        try:
            handle = os.open(name, _FILE, dir_fd=self._handle)
            try:
                data = os.read(handle, size + 1)
            finally:
                os.close(handle)
        except OSError:
            return None
        return data if len(data) == size else None

    def take(self, name: str) -> str:
        """The path to link to, of the file that was opened last."""
        if self._opened:
            self._taken.add(self._opened)
        return f"{self.place}/{name}"

    def close(self) -> None:
        if self._handle != _NOWHERE:
            os.close(self._handle)
            self._handle = _NOWHERE

    def __enter__(self) -> Earlier:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
