"""Directories for the length of a block that also go when their process was killed: the next of their kind sweeps them away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from runtime.store.durable import remove_tree
from runtime.store.owners import is_alive, own_token


@contextmanager
def temporary_directory(prefix: str, parent: str | None = None) -> Iterator[str]:
    """A directory of mode 0700 below `parent` (where temporary files go), removed afterwards. `prefix` names its kind."""
    place = parent or tempfile.gettempdir()
    sweep(place, prefix)
    path = tempfile.mkdtemp(prefix=f"{prefix}{own_token()}-", dir=place)
    try:
        yield path
    finally:
        with suppress(OSError):
            remove_tree(path)


def sweep(parent: str, prefix: str) -> None:
    """Remove what killed processes of this user left."""
    for name in os.listdir(parent):
        if name.startswith(prefix) and not is_alive(name[len(prefix) :].rpartition("-")[0]):
            path = os.path.join(parent, name)
            with suppress(OSError):  # another of us swept it
                if os.lstat(path).st_uid == os.getuid():
                    remove_tree(path)
