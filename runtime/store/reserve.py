"""A little room on the store's disk that is kept for the day it is full: whoever removes things first writes to the database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SIZE = 1 << 20


def keep(root: str) -> None:
    """Have the reserve, where there is room for it."""
    place = _place(root)
    with suppress(OSError):
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        finally:
            os.close(descriptor)


@contextmanager
def given_up(root: str) -> Iterator[None]:
    """In this block there is that much more room than before."""
    with suppress(OSError):
        os.unlink(_place(root))
    try:
        yield
    finally:
        if os.path.isdir(root):
            keep(root)


def _place(root: str) -> str:
    return os.path.join(root, "reserve")
