"""Go through a directory tree in the order of a layer, holding little of it: the files come in stretches.

A stretch is files that follow each other in one directory. It is what content is remembered of
(`builder.digests`), and as much as is ever held in memory: a directory of a million files comes in many. Where a stretch
ends depends on the names alone.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

from registry_client.tuples import NamedTuple
from runtime.errors import InvalidInput, PipeError

LONGEST = 512  # files of a stretch
_RUN = 20_000  # names that are sorted at once
STATUS = struct.Struct("<IQQQqq")  # mode, inode, device, size, mtime, ctime


class Item(NamedTuple):
    """One file: `name` below the destination, where it lies, what it is."""

    name: str
    path: str
    status: os.stat_result


def packed(status: os.stat_result) -> bytes:
    return STATUS.pack(
        status.st_mode, status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


class Stretch:
    """`directory` is set where its contents begin, which may be empty. The files are `prefix + name` at `path/name`."""

    __slots__ = ("directory", "inode", "names", "path", "prefix", "single", "statuses")

    def __init__(self, path: str, inode: int, prefix: str, directory: Item | None = None) -> None:
        self.path, self.inode, self.prefix, self.directory = path, inode, prefix, directory
        self.names: list[str] = []
        self.statuses: list[os.stat_result] = []
        self.single: Item | None = None  # a file that may have another name than at its place

    @classmethod
    def of_item(cls, item: Item) -> Stretch:
        """A stretch of one, of a file or directory that was named itself."""
        if stat.S_ISDIR(item.status.st_mode):
            return cls(item.path, item.status.st_ino, f"{item.name}/", item)
        path = os.path.dirname(item.path)
        found = cls(path, os.stat(path).st_ino, "")
        found.names, found.statuses, found.single = [item.name], [item.status], item
        return found

    def files(self) -> Iterator[Item]:
        """Without the directory."""
        if self.single is not None:
            yield self.single
            return
        prefix, path = self.prefix, f"{self.path}/"
        for name, status in zip(self.names, self.statuses):
            yield Item(prefix + name, path + name, status)

    def items(self) -> Iterator[Item]:
        if self.directory is not None:
            yield self.directory
        yield from self.files()

    def text(self) -> str:
        """All names."""
        return "\0".join(self.names)

    def packed(self) -> bytes:
        """All statuses, as far as they tell whether something changed."""
        return b"".join(map(packed, self.statuses))

    @property
    def is_filled(self) -> bool:
        """Whether it has files."""
        return bool(self.names)

    def entries(self) -> Iterator[tuple[str, int, int, int]]:
        """Of each file the name, mode, size and modification time (ns)."""
        for name, status in zip(self.names, self.statuses):
            yield name, status.st_mode, status.st_size, status.st_mtime_ns

    def item(self, number: int) -> Item:
        """One of the files."""
        name = self.names[number]
        return Item(self.prefix + name, f"{self.path}/{name}", self.statuses[number])

    def anew(self) -> Stretch:
        """With what its files are now, where that was looked at some time ago."""
        return self


class Filter(Protocol):
    """What is left out. Names are those of the items."""

    def leaves_out(self, name: str, is_directory: bool) -> bool: ...

    def may_keep_below(self, name: str) -> bool: ...


class _Place:
    """A directory that is being gone through. `held`: it is left out itself, but something below may not be (A-86)."""

    def __init__(self, path: str, inode: int, prefix: str, item: Item | None, held: bool) -> None:
        self.path, self.inode, self.prefix, self.item, self.held = path, inode, prefix, item, held
        # Never through a link that was a directory when it was looked at; the top may be one.
        self._flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if item else 0)
        self._names: Iterator[str] | None = None
        self._ended = False
        self.waiting: list[tuple[str, os.stat_result]] = []  # looked at, last first

    def look(self) -> bool:
        """Have some names in `waiting`; False when there are no more."""
        if self.waiting:
            return True
        if self._ended:
            return False
        try:
            return self._read()
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _read(self) -> bool:
        handle = os.open(self.path, self._flags)
        try:
            if self._names is None:
                self._names = _names_in(handle)
            some = list(islice(self._names, LONGEST))
            self._ended = len(some) < LONGEST
            self.waiting = [
                (name, os.stat(name, dir_fd=handle, follow_symlinks=False)) for name in reversed(some)
            ]
        finally:
            os.close(handle)
        return bool(some)


def unreadable(path: str, error: OSError) -> PipeError:
    # ELOOP: what was a file is a link now, which O_NOFOLLOW refuses.
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return changed_while_read(path)
    return InvalidInput(f"cannot read {path}: {error.strerror}")


def changed_while_read(path: str) -> PipeError:
    return InvalidInput(f"{path} changed while it was read", hint="build again when nothing writes there")


def _names_in(handle: int) -> Iterator[str]:
    """The names in a directory, sorted by their bytes. All are read now."""
    with os.scandir(handle) as entries:
        names = [entry.name for entry in islice(entries, _RUN)]
        if len(names) < _RUN:
            return iter(_sorted(names))
        # As strings they would take five times as much.
        runs = []
        while names:
            runs.append(b"".join(os.fsencode(name) + b"\0" for name in _sorted(names)))
            names = [entry.name for entry in islice(entries, _RUN)]
    from heapq import merge

    return map(os.fsdecode, merge(*map(_split, runs)))


def _split(run: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(run):
        end = run.index(0, start)
        yield run[start:end]
        start = end + 1


def _sorted(names: list[str]) -> list[str]:
    """By bytes. Characters are in that order too, but for those that stand for bytes which are no UTF-8."""
    names.sort()
    if not "".join(names).isascii():
        names.sort(key=os.fsencode)
    return names


def stretches(top: str, inode: int, prefix: str, chosen: Filter | None = None) -> Iterator[Stretch]:
    """All below `top`, whose names begin with `prefix`. Any depth."""
    places = [_Place(top, inode, prefix, None, False)]
    while places:
        place = places[-1]
        stretch = Stretch(place.path, place.inode, place.prefix)
        if place.item is not None and not place.held:
            stretch.directory, place.item = place.item, None
        below = _fill(stretch, place, chosen)
        if stretch.names or stretch.directory is not None:
            yield from _held(places)
            yield stretch
        if below is not None:
            places.append(below)
        elif not place.look():
            places.pop()


def _held(places: Sequence[_Place]) -> Iterator[Stretch]:
    """The directories above what is not left out, which are there for its sake."""
    for place in places:
        if place.held:
            place.held = False
            yield Stretch(place.path, place.inode, place.prefix, place.item)
            place.item = None


def _fill(stretch: Stretch, place: _Place, chosen: Filter | None) -> _Place | None:
    """Take files up to the next directory, which is returned, or as many as a stretch has."""
    add_name, add_status = stretch.names.append, stretch.statuses.append
    while len(stretch.names) < LONGEST and place.look():
        waiting = place.waiting
        while waiting:
            name, status = waiting.pop()
            is_directory = stat.S_ISDIR(status.st_mode)
            held = chosen is not None and chosen.leaves_out(place.prefix + name, is_directory)
            if not is_directory:
                if not held:
                    add_name(name)
                    add_status(status)
                    if len(stretch.names) == LONGEST:
                        return None
            elif not held or (chosen is not None and chosen.may_keep_below(place.prefix + name)):
                full, path = place.prefix + name, f"{place.path}/{name}"
                return _Place(path, status.st_ino, f"{full}/", Item(full, path, status), held)
    return None
