"""Look into a root that is not running: merged from its layers, without leaving a mount anywhere.

The overlay is mounted detached: it is reached by its descriptor alone and is gone with it, also by kill -9.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.sandbox.paths import Root
from runtime.sandbox.plan import RootFs
from runtime.sandbox.rootfs import overlay


@contextmanager
def merged(lowers: Sequence[str], upper: str = "", work: str = "") -> Iterator[Root | None]:
    """The root that layers make, topmost first; writable with `upper`. None when there are no layers at all."""
    if not lowers and not upper:
        yield None
        return
    if len(lowers) + bool(upper) == 1:
        descriptor = os.open(upper or lowers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        descriptor = overlay(RootFs(list(lowers), upper, work))
    try:
        yield Root(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def opened_beneath(lowers: Sequence[str], path: str) -> Iterator[int | None]:
    """A directory of an image, open for reading; None when the image has none there."""
    with merged(lowers) as root:
        descriptor = _directory(root, path) if root is not None else None
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
