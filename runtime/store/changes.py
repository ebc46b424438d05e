"""What a program changed in a directory that `Merged` made, and how it becomes a layer: as overlayfs would have made it.

A file counts as changed when it is another inode, its change time is not the noted one, or it was open for writing; names that are gone become
whiteouts, directories that were replaced are opaque, and a directory in which something was made, removed or changed is there
with its attributes. What differs from overlayfs: there a change of a file with several names is seen under one of them only.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum

from registry_client.values import frozen
from runtime.linux.files import birth_time, synchronize_status
from runtime.store.durable import remove_tree
from runtime.store.hiding import OVERLAY, form_of
from runtime.store.merging import (
    BORN,
    CHANGED,
    ENTRIES,
    INODE,
    MARKED,
    Noted,
    copy_attributes,
    forget,
    is_marked,
)
from runtime.store.probing import kind_of
from runtime.store.written import Written

_CLOCK_REALTIME_COARSE = 5  # linux/time.h; change times are read from it
_CHUNK = 1 << 20


class Kind(StrEnum):
    TOUCHED = "touched"  # a directory that was there before
    MADE = "made"  # a directory
    REPLACED = "replaced"  # a directory in place of something else
    WRITTEN = "written"  # anything else
    GONE = "gone"
    LITTER = "litter"  # what no layer can hold: sockets


@frozen
class Change:
    kind: Kind
    path: bytes


class Changes:
    """The changes of one tree, found at once; `statuses` are those of its directories at that moment.

    `written` are the files that were open for writing (runtime/store/written.py).
    """

    def __init__(self, root: str, noted: Noted, written: Written | None = None) -> None:
        self._top, self._noted, self._written = os.fsencode(root), noted, written or {}
        self.statuses: dict[bytes, os.stat_result] = {}
        # A server in user space may have one file under several names, each with a status the kernel keeps for a while.
        self._kept = kind_of(root).startswith("fuse")
        self.found = tuple(self._merged(b"", os.lstat(self._top)))

    def _full(self, path: bytes) -> bytes:
        return self._top + b"/" + path if path else self._top

    def _merged(self, path: bytes, status: os.stat_result) -> Iterator[Change]:
        """A directory that was there before."""
        self.statuses[path] = status
        here = self._noted[path]
        if status.st_ctime_ns != here[CHANGED]:
            yield Change(Kind.TOUCHED, path)
        left = dict(here[ENTRIES])
        prefix = path + b"/" if path else b""
        for name, found in _listed(self._full(path), self._kept):
            child = prefix + name
            before = left.pop(name, b"")
            if stat.S_ISDIR(found.st_mode):
                if before is None and self._is_same(child, found):
                    yield from self._merged(child, found)
                else:
                    yield Change(Kind.MADE if before == b"" else Kind.REPLACED, child)
                    yield from self._made(child, found)
            elif _is_litter(found):
                yield Change(Kind.LITTER, child)
                if before != b"":
                    yield Change(Kind.GONE, child)
            elif not isinstance(before, tuple) or not self._is_unchanged(child, found, before):
                yield Change(Kind.WRITTEN, child)
        for name in sorted(left):
            yield Change(Kind.GONE, prefix + name)

    def _made(self, path: bytes, status: os.stat_result) -> Iterator[Change]:
        """What is in a new directory."""
        self.statuses[path] = status
        for name, found in _listed(self._full(path), self._kept):
            child = path + b"/" + name
            if stat.S_ISDIR(found.st_mode):
                yield Change(Kind.MADE, child)
                yield from self._made(child, found)
            else:
                yield Change(Kind.LITTER if _is_litter(found) else Kind.WRITTEN, child)

    def _is_same(self, path: bytes, status: os.stat_result) -> bool:
        """Whether a directory is the one that was noted.

        Its inode's number says little: it may have been given to another one since, and overlayfs makes some up (overlayfs.rst,
        Inode properties). The time of its birth tells, or the mark it was given where there is none.
        """
        here = self._noted[path]
        if status.st_ino == here[INODE] and status.st_ctime_ns == here[CHANGED]:
            return True
        if here[BORN] == MARKED:
            return bool(status.st_ino == here[INODE]) and is_marked(self._full(path))
        born = birth_time(self._full(path))
        return bool(born == here[BORN] if born else status.st_ino == here[INODE])

    def _is_unchanged(self, path: bytes, status: os.stat_result, before: tuple[int, int, bytes]) -> bool:
        inode, changed, source = before
        if status.st_ino != inode:
            return False
        if not source:
            return status.st_ctime_ns == changed and inode not in self._written
        # Removing one of its names changes an inode too: a file with several is compared with what it was copied from.
        if path in self._written.get(inode, ()):
            return False
        return status.st_ctime_ns == changed or _is_copy(self._full(path), status, source)


def _listed(directory: bytes, kept: bool) -> list[tuple[bytes, os.stat_result]]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # a container that runs has removed it meanwhile
                if kept:
                    synchronize_status(entry.path)
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return sorted(found)


def _is_litter(status: os.stat_result) -> bool:
    return stat.S_ISSOCK(status.st_mode) or OVERLAY.is_whiteout(status)


def _is_copy(path: bytes, status: os.stat_result, source: bytes) -> bool:
    """Whether a file is, name and all, what it was copied from."""
    try:
        model = os.lstat(source)
    except FileNotFoundError:
        return False  # the store was moved since
    same = (model.st_mode, model.st_uid, model.st_gid, model.st_size, model.st_mtime_ns, model.st_rdev) == (
        status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_rdev,
    )  # fmt: skip
    if not same or _attributes(path) != _attributes(source):
        return False
    if not stat.S_ISREG(status.st_mode):
        return not stat.S_ISLNK(status.st_mode) or os.readlink(path) == os.readlink(source)
    with open(path, "rb") as one, open(source, "rb") as other:
        while data := one.read(_CHUNK):
            if data != other.read(_CHUNK):
                return False
    return True


def _attributes(path: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if name.startswith(("user.", "security.capability"))
    }


def draw_out(root: str, noted: Noted, upper: str, written: Written | None = None) -> None:
    """Move what was changed into the layer's directory `upper`, whose form its name tells.

    What is left is as it was before, without what was changed: with that layer added it is again what it is now.
    """
    _Drawing(root, noted, upper, written).run()


class _Drawing:
    def __init__(self, root: str, noted: Noted, upper: str, written: Written | None) -> None:
        self._top, self._upper = os.fsencode(root), os.fsencode(upper)
        self._noted, self._form = noted, form_of(upper)
        self._changes = Changes(root, noted, written)
        self._raised: list[bytes] = [b""]  # a directory before what is in it
        self._in_upper = {b""}
        self._replaced: list[bytes] = []

    def run(self) -> None:
        for change in self._changes.found:
            self._carry_out(change.kind, change.path)
        for path in reversed(self._raised):
            source = self._top + b"/" + path if path else self._top
            target = self._upper + b"/" + path if path else self._upper
            copy_attributes(source, target, self._changes.statuses[path])
        for path in self._replaced:
            remove_tree(os.fsdecode(self._top + b"/" + path))

    def _carry_out(self, kind: Kind, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        if kind is Kind.LITTER:
            os.unlink(self._top + b"/" + path)
            return
        if kind is Kind.TOUCHED:
            self._raise(path)
            return
        self._raise(parent)
        if kind is Kind.WRITTEN:
            os.rename(self._top + b"/" + path, self._upper + b"/" + path)
        elif kind is Kind.GONE:
            self._form.hide(self._upper + b"/" + path)
        else:
            self._raise(path)
            if kind is Kind.REPLACED:
                self._form.set_opaque(self._upper + b"/" + path)
            if parent in self._noted:
                self._replaced.append(path)
        self._forget(parent, path, name)

    def _forget(self, parent: bytes, path: bytes, name: bytes) -> None:
        if parent in self._noted and self._noted[parent][ENTRIES].pop(name, b"") is None:
            forget(self._noted, path)

    def _raise(self, path: bytes) -> None:
        """Have the directory in the layer; it gets its attributes in the end, when nothing is put into it any more."""
        if path in self._in_upper:
            return
        self._raise(path.rpartition(b"/")[0])
        os.mkdir(self._upper + b"/" + path, 0o700)
        self._in_upper.add(path)
        self._raised.append(path)


def wait_for_tick(newest: int) -> None:
    """Until the kernel's clock has moved past `newest`: what is changed from now on gets another change time."""
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= newest < time.time_ns():
        time.sleep(0.001)
