"""Look into a stack of layers' directories as overlayfs would, without mounting it. Never follows a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from runtime.store.hiding import OVERLAY, form_of


class Lowers:
    """Lower directories, topmost first, all of one form."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = [os.fsencode(each) for each in directories]
        self._form = form_of(directories[0]) if directories else OVERLAY

    def __bool__(self) -> bool:
        return bool(self._directories)

    def find(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """Where the merged `path` really lies, and its status; None when there is no such file."""
        parts = path.split(b"/") if path else []
        for directory in self._directories:
            found, last = self._find_in(directory, parts)
            if found is not None or last:
                return found
        return None

    def _find_in(
        self, directory: bytes, parts: list[bytes]
    ) -> tuple[tuple[bytes, os.stat_result] | None, bool]:
        """What one layer has at the path, and whether the layers below it do not count any more."""
        at, hides = directory, False
        status = os.lstat(at)
        for position, part in enumerate(parts):
            at += b"/" + part
            try:
                status = os.lstat(at)
            except (FileNotFoundError, NotADirectoryError):
                return None, hides
            if self._form.is_whiteout(status):
                return None, True
            if position < len(parts) - 1:
                if not stat.S_ISDIR(status.st_mode):
                    return None, True
                hides = hides or self._form.is_opaque(at)
        return (at, status), True

    def names(self, path: bytes) -> set[bytes]:
        """The names in the merged directory `path`."""
        found: set[bytes] = set()
        hidden: set[bytes] = set()
        for directory in self._directories:
            at = directory + b"/" + path if path else directory
            if not self._is_real_directory(directory, path):
                continue
            with os.scandir(at) as entries:
                for entry in entries:
                    if self._form.is_whiteout(entry.stat(follow_symlinks=False)):
                        hidden.add(entry.name)
                    elif entry.name not in hidden:
                        found.add(entry.name)
            if path and self._form.is_opaque(at):
                break
        return found

    @staticmethod
    def _is_real_directory(directory: bytes, path: bytes) -> bool:
        at = directory
        for part in path.split(b"/") if path else ():
            at += b"/" + part
            try:
                if not stat.S_ISDIR(os.lstat(at).st_mode):
                    return False
            except OSError:
                return False
        return True

    def directory(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """Where the merged directory `path` has its attributes from, and its status; None when it is none."""
        found = self.find(path)
        return found if found is not None and stat.S_ISDIR(found[1].st_mode) else None

    @staticmethod
    def is_same(
        found: tuple[bytes, os.stat_result], status: os.stat_result, xattrs: Mapping[str, bytes]
    ) -> bool:
        """Whether a directory that was found has this owner and mode and these attributes (times do not count)."""
        from runtime.store.layers.diff import layer_xattrs

        at, below = found
        same = (below.st_mode, below.st_uid, below.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
        return same and dict(layer_xattrs(at)) == dict(xattrs)
