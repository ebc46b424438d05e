"""Hiding what the kernel shows and containers must not see: masked and read-only paths.

A masked file is covered by the container's own /dev/null, a masked directory by one empty read-only tmpfs. The null
device is checked after opening: a container that shares a volume could swap it for a link meanwhile (CVE-2025-31133).
"""

from __future__ import annotations

import os
import stat

from runtime.linux import mounts as linux
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.mounts import mount_at
from runtime.sandbox.paths import Root

_NULL = os.makedev(1, 3)
_CLONE = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC


def _find(root: Root, path: str) -> int:
    try:
        return root.find(path)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _checked_null(root: Root) -> int:
    null = root.find("/dev/null", os.O_PATH | os.O_NOFOLLOW)
    found = os.fstat(null)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL:
        os.close(null)
        raise SandboxError("/dev/null is not the null device", operation="mask paths")
    return null


def _cover(cover: int, place: int) -> None:
    tree = linux.open_tree(cover, "", _CLONE | linux.AT_EMPTY_PATH)
    try:
        linux.move_mount(tree, place)
    finally:
        os.close(tree)


def _cover_first(place: int, root: Root, path: str) -> int:
    """One file system for all directories; later ones get clones of this first mount."""
    mount_at(place, "tmpfs", "tmpfs", linux.MS_RDONLY, "size=0,nr_inodes=1")
    return root.find(path)


class Masks:
    """linux.maskedPaths; what does not exist needs no mask."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def describe(self) -> str:
        return "mask paths"

    def apply(self, root: Root) -> None:
        null = empty = -1
        try:
            for path in self.paths:
                place = _find(root, path)
                if place < 0:
                    continue
                try:
                    if not stat.S_ISDIR(os.fstat(place).st_mode):
                        null = _checked_null(root) if null < 0 else null
                        _cover(null, place)
                    elif empty < 0:
                        empty = _cover_first(place, root, path)
                    else:
                        _cover(empty, place)
                finally:
                    os.close(place)
        finally:
            for descriptor in (null, empty):
                if descriptor >= 0:
                    os.close(descriptor)


class ReadOnlyPaths:
    """linux.readonlyPaths: each becomes a mount of its own that cannot be written, with all that is mounted below."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def describe(self) -> str:
        return "make paths read-only"

    def apply(self, root: Root) -> None:
        recursive = linux.AT_EMPTY_PATH | linux.AT_RECURSIVE
        for path in self.paths:
            place = _find(root, path)
            if place < 0:
                continue
            try:
                tree = linux.open_tree(place, "", _CLONE | recursive)
                try:
                    linux.mount_setattr(tree, "", recursive, add=linux.MOUNT_ATTR_RDONLY)
                    linux.move_mount(tree, place)
                finally:
                    os.close(tree)
            finally:
                os.close(place)
