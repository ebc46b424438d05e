"""Look into a root that is not running: merged from its layers, without leaving a mount behind.

Where overlay is refused a container has a tree of its own from its first start, a copy of its layers. Else the overlay is mounted for the moment it takes to open it, then detached: from there on only the descriptor keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.containers.container import Container
from runtime.sandbox.paths import Root
from runtime.store.durable import remove_tree
from runtime.store.overlay import overlay
from runtime.store.store import Store


def lowers_of(store: Store, container: Container) -> tuple[str, ...]:
    """What lies below a container's own layer. An image of no layers at all still needs something there."""
    snapshot = container.snapshot
    return store.snapshots.lowers(snapshot) if snapshot else (os.path.join(store.root, "empty"),)


def tree_directory(container: Container) -> str:
    """Where `runtime.store.copies` keeps a container's tree, if it has one."""
    return os.path.join(container.directory, "copied")


def own_tree(store: Store, container: Container, *, make: bool = True) -> str:
    """The path of the container's tree, made now unless `make` is False; "" when its root is an overlay."""
    path = os.path.join(tree_directory(container), "tree")
    if os.path.isdir(path):
        return path
    if not (make and store.snapshots.copied_because):
        return ""
    from runtime.store.copies import make_tree

    upper = os.path.join(container.directory, "upper")
    return make_tree(tree_directory(container), lowers_of(store, container), upper)


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
    if store.snapshots.copied_because:
        assert not upper, "what is written to is a tree"
        with store.snapshots.copies.view(lowers) as path:
            return os.open(path, flags)
    with overlay(store.snapshots.mounts, lowers, upper, work, empty=empty) as path:
        return os.open(path, flags)


def forget_volatile(work: str) -> None:
    """An overlay that was mounted `volatile` marks its work directory, and no other mount takes that (overlayfs.rst)."""
    remove_tree(os.path.join(work, "work", "incompat", "volatile"))


@contextmanager
def opened(store: Store, container: Container, *, write: bool) -> Iterator[Root]:
    """The root of a container that does not run, to write to only with `write`."""
    if tree := own_tree(store, container, make=write):
        descriptor = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Root(descriptor)
        finally:
            os.close(descriptor)
        return
    upper, work = (os.path.join(container.directory, name) for name in ("upper", "work"))
    lowers = lowers_of(store, container)
    if store.snapshots.copied_because:
        shown = merged(store, (upper, *lowers) if os.listdir(upper) else lowers)
    else:
        shown = merged(store, lowers, upper, work)
    with shown as root:
        yield root


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
