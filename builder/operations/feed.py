"""A layer's hash while its files are being copied, so that nothing is read a second time.

Entries must come in the order of a layer, and be all there is. Where that cannot be kept (a directory is merged with
one of the root, a name comes twice) the feed is abandoned, and the layer is hashed from the finished directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.store.layers import DiffInfo

NO_XATTRS: Mapping[str, bytes] = {}


class _Entry:
    """What the writer wants to know of a file; one object serves all, because it keeps none."""

    __slots__ = (
        "st_dev",
        "st_gid",
        "st_ino",
        "st_mode",
        "st_mtime_ns",
        "st_nlink",
        "st_rdev",
        "st_size",
        "st_uid",
    )

    def __init__(self) -> None:
        self.st_mode = self.st_uid = self.st_gid = self.st_size = self.st_mtime_ns = 0
        self.st_nlink = 1
        self.st_ino = self.st_dev = self.st_rdev = 0


class LayerFeed:
    """The layer of one COPY. A context manager."""

    def __init__(self) -> None:
        from runtime.store.layers import LayerWriter

        self._writer = LayerWriter()
        self._entry = _Entry()
        self._alive = True

    def abandon(self) -> None:
        self._alive = False
        self._writer.close()

    def __enter__(self) -> LayerFeed:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    @property
    def alive(self) -> bool:
        return self._alive

    def directory(self, path: str, mode: int, uid: int, gid: int, mtime_ns: int, place: str) -> None:
        """A directory that was made, or is needed above what follows."""
        if self._alive:
            entry = self._set(stat.S_IFDIR | mode, uid, gid, mtime_ns)
            self._writer.add(os.fsencode(path), entry, xattrs=_xattrs(place))

    def existing(self, path: str, place: str, mtime_ns: int) -> None:
        """A directory of the upper, as it is there."""
        status = os.stat(place)
        self.directory(path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, mtime_ns, place)

    def add(
        self,
        path: str,
        mode: int,
        owner: tuple[int, int],
        mtime_ns: int,
        source: os.stat_result,
        *,
        data: bytes | None = b"",
        target: str = "",
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> None:
        """Anything but a directory. A regular file with `data` None gets its bytes by `write`."""
        if not self._alive:
            return
        if data is not None and source.st_nlink == 1 and not xattrs and stat.S_ISREG(source.st_mode):
            self.add_file(path, mode, owner, mtime_ns, data)
            return
        entry = self._set(stat.S_IFMT(source.st_mode) | mode, owner[0], owner[1], mtime_ns)
        entry.st_nlink, entry.st_ino, entry.st_dev = source.st_nlink, source.st_ino, source.st_dev
        entry.st_size, entry.st_rdev = source.st_size, source.st_rdev
        self._writer.add(os.fsencode(path), entry, data, target=os.fsencode(target), xattrs=xattrs)

    def add_file(self, path: str, mode: int, owner: tuple[int, int], mtime_ns: int, data: bytes) -> None:
        """A regular file with one name and no attributes, where the feed is alive."""
        self._writer.add_file(os.fsencode(path), mode, *owner, mtime_ns, data)

    def write(self, data: bytes) -> None:
        if self._alive:
            self._writer.write(data)

    def _set(self, mode: int, uid: int, gid: int, mtime_ns: int) -> _Entry:
        entry = self._entry
        entry.st_mode, entry.st_uid, entry.st_gid, entry.st_mtime_ns = mode, uid, gid, mtime_ns
        entry.st_nlink, entry.st_size, entry.st_rdev = 1, 0, 0
        return entry

    def finish(self) -> DiffInfo | None:
        """The layer's name; None when it must be hashed from the directory."""
        return self._writer.finish() if self._alive and self._writer.entries else None


def _xattrs(place: str) -> Mapping[str, bytes]:
    from runtime.store.layers.diff import layer_xattrs

    return layer_xattrs(os.fsencode(place))
