"""Look into a root that is not running: merged from its layers, without leaving a mount behind.

The overlay is mounted for the moment it takes to open it, then detached: from there on only the descriptor keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.sandbox.paths import Root
from runtime.store.durable import remove_tree
from runtime.store.overlay import overlay
from runtime.store.store import Store


@contextmanager
def merged(store: Store, lowers: Sequence[str], upper: str = "", work: str = "") -> Iterator[Root]:
    """The root that layers make, topmost first; writable with `upper`."""
    descriptor = _open(store, lowers, upper, work)
    try:
        yield Root(descriptor)
    finally:
        os.close(descriptor)
        if upper:
            forget_volatile(work)


def _open(store: Store, lowers: Sequence[str], upper: str, work: str) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    empty = os.path.join(store.root, "empty")
    if len(lowers) + bool(upper) <= 1:
        return os.open(upper or (lowers[0] if lowers else empty), flags)
    with overlay(store.snapshots.mounts, lowers, upper, work, empty=empty) as path:
        return os.open(path, flags)


def forget_volatile(work: str) -> None:
    """An overlay that was mounted `volatile` marks its work directory, and no other mount takes that (overlayfs.rst)."""
    remove_tree(os.path.join(work, "work", "incompat", "volatile"))


@contextmanager
def opened_beneath(store: Store, lowers: Sequence[str], path: str) -> Iterator[int | None]:
    """A directory of an image, open for reading; None when the image has none there."""
    with merged(store, lowers) as root:
        descriptor = _directory(root, path)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _directory(root: Root, path: str) -> int | None:
    try:
        return root.find(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
