"""What a look at a context came upon, kept for the step that then has to be done: its files need not be gone through twice.

Of a stretch of files the names and the statuses are kept as they are hashed, 50 bytes a file; of large contexts nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from builder.operations.selection import Group
from builder.operations.walking import STATUS, Item, Stretch, changed_while_read, packed, unreadable

if TYPE_CHECKING:
    from builder.operations.selection import Tree

_MOST = 8 << 20  # bytes that are kept
_OBJECT = 400  # bytes, about
_FRESH = 3.0  # seconds: later the step looks by itself


class SeenStretch(Stretch):
    """A stretch without the statuses of its files, but what they hash to. It has all that is asked of one that did not change."""

    __slots__ = ("_packed", "_text")

    def __init__(self, stretch: Stretch) -> None:
        super().__init__(stretch.path, stretch.inode, stretch.prefix, stretch.directory)
        self._text, self._packed = stretch.text(), stretch.packed()

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self._text) + len(self._packed) + _OBJECT * (1 if self.directory is None else 3)

    @property
    def is_filled(self) -> bool:
        return bool(self._packed)

    def text(self) -> str:
        return self._text

    def packed(self) -> bytes:
        return self._packed

    def entries(self) -> Iterator[tuple[str, int, int, int]]:
        for name, status in zip(self._text.split("\0"), STATUS.iter_unpack(self._packed)):
            mode, _, _, size, mtime_ns, _ = status
            yield name, mode, size, mtime_ns

    def item(self, number: int) -> Item:
        name = self._text.split("\0")[number]
        path = f"{self.path}/{name}"
        try:
            status = os.lstat(path)
        except OSError as error:
            raise unreadable(path, error) from error
        if packed(status) != self._packed[number * STATUS.size : (number + 1) * STATUS.size]:
            raise changed_while_read(path)
        return Item(self.prefix + name, path, status)

    def anew(self) -> Stretch:
        found = Stretch(self.path, self.inode, self.prefix, self.directory)
        for name in self._text.split("\0"):
            with suppress(FileNotFoundError):  # gone since: as if it had not been there
                found.statuses.append(os.lstat(f"{self.path}/{name}"))
                found.names.append(name)
        return found


class Seen:
    """All stretches of one directory's contents, in order."""

    def __init__(self, tree: Tree) -> None:
        self._tree, self._began = tree, time.monotonic()
        self._stretches: list[SeenStretch] = []
        self._size, self._is_whole = 0, True

    def add(self, stretch: Stretch) -> Stretch:
        """Keep what a stretch hashes to, which is given back."""
        if not self._is_whole:
            return stretch
        kept = SeenStretch(stretch)
        self._stretches.append(kept)
        self._size += kept.size
        if self._size > _MOST:
            self._is_whole = False
            self._stretches.clear()
        return kept

    def instead_of(self, group: Group, tree: Tree) -> Group:
        """The group with what was seen for its contents; the group itself where that is too old or not all."""
        age = time.monotonic() - self._began
        if not self._is_whole or age > _FRESH or tree != self._tree:
            return group
        return Group(group.source, True, status=group.status, below=lambda: iter(self._stretches))
