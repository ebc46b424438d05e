"""What a look at a context came upon, kept for the step that then has to be done: its files need not be gone through twice.

Of a stretch of files the names and the statuses are kept as they are hashed, 50 bytes a file; of large contexts nothing.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
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
        """What is gone since is as if it had not been there."""
        found = Stretch(self.path, self.inode, self.prefix, self.directory)
        for name in self._text.split("\0"):
            try:
                status = os.lstat(f"{self.path}/{name}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(self.path, error) from error
            if stat.S_ISDIR(status.st_mode):
                raise changed_while_read(f"{self.path}/{name}")
            found.statuses.append(status)
            found.names.append(name)
        return found


class Seen:
    """All stretches of a group that is a directory's contents, in order."""

    def __init__(self, tree: Tree, group: Group) -> None:
        self._of, self._began = _place(tree, group), time.monotonic()
        self._stretches: list[SeenStretch] = []
        self._size, self._is_whole, self._is_small = 0, False, True

    def add(self, stretch: Stretch) -> Stretch:
        """Keep what a stretch hashes to, which is given back."""
        if not self._is_small:
            return stretch
        kept = SeenStretch(stretch)
        self._stretches.append(kept)
        self._size += kept.size
        if self._size > _MOST:
            self._is_small = False
            self._stretches.clear()
        return kept

    def end(self) -> None:
        """That was all."""
        self._is_whole = self._is_small

    def instead_of(self, group: Group, tree: Tree) -> Group:
        """The group with what was seen for its contents; the group itself where that is too old or not all."""
        is_fresh = time.monotonic() - self._began <= _FRESH
        if not self._is_whole or not is_fresh or _place(tree, group) != self._of:
            return group
        return Group(group.source, True, status=group.status, below=lambda: iter(self._stretches))


def seen_of(tree: Tree, groups: Sequence[Group]) -> Seen | None:
    """What to note a look at a selection in, where that is the contents of one directory."""
    if len(groups) != 1 or groups[0].status is None:
        return None
    return Seen(tree, groups[0])


def _place(tree: Tree, group: Group) -> tuple[Tree, str, int, int]:
    """What the contents depend on. The source may be a link that leads elsewhere by now."""
    assert group.status is not None, "a directory was looked at"
    return tree, group.source, group.status.st_dev, group.status.st_ino
