"""The files of a root, read without ever leaving it, and never more of one than is sensible."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.operations.roots import Root

FILE_LIMIT = 64 << 20
ENTRY_LIMIT = 2_000_000
_KERNEL = frozenset({"proc", "sys", "dev"})


class RootFiles:
    """A root file system at a path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._root = Root(path)
        self.notes: list[str] = []  # what `walk` did not see

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes | None:
        """A regular file, links followed within the root; None when it is not there, or larger than `limit`."""
        data = self._root.read(name, limit + 1)
        return None if data is None or len(data) > limit else data

    def exists(self, name: str) -> bool:
        return self._root.locate(self._root.resolve(name)) is not None

    def host_path(self, name: str) -> str | None:
        """Where a regular file of the root lies on the host; no link is left in the path."""
        place = self._root.locate(self._root.resolve(name))
        return place if place is not None and os.path.isfile(place) and not os.path.islink(place) else None

    def names(self, name: str) -> list[str]:
        """The names in a directory, sorted; none when it is not there."""
        places = self._root.directories(self._root.resolve(name))
        return sorted(os.listdir(places[0])) if places else []

    @contextmanager
    def opened(self, directory: str, name: str, *, executable: bool = False) -> Iterator[BinaryIO | None]:
        """A regular file that `walk` told of; None where we may not read it, or with `executable` nobody may execute it."""
        path = f"{self._path}/{directory}/{name}"
        try:
            if executable and not os.lstat(path).st_mode & 0o111:
                yield None
                return
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        with open(descriptor, "rb") as file:
            yield file

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """`(directory, its directories, its files)` of the whole root, sorted; no link is followed."""
        waiting, seen = [""], 0
        while waiting and seen < ENTRY_LIMIT:
            directory = waiting.pop()
            directories, files = self._entries(directory)
            seen += len(directories) + len(files)
            yield directory, directories, files
            below = [each for each in directories if directory or each not in _KERNEL]
            waiting.extend(f"{directory}/{each}" if directory else each for each in reversed(below))
        if waiting:
            self.notes.append(
                f"more than {ENTRY_LIMIT} files: what is in /{waiting[-1]} and later was not looked at"
            )

    def _entries(self, directory: str) -> tuple[list[str], list[str]]:
        directories, files = [], []
        try:
            with os.scandir(f"{self._path}/{directory}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
        except PermissionError:  # another's, where we are not root
            self.notes.append(f"/{directory} may not be read")
        return sorted(directories), sorted(files)


def text_of(data: bytes) -> str:
    """What was read as text; what is no UTF-8 is shown as such, so that the list can be written."""
    return data.decode("utf-8", "replace")
