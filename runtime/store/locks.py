"""Locks between processes by name, so that two of them do not do the same long work twice. Nothing's safety needs one."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.cancel import Cancel

_PAUSE = 0.02
_NAME = 32  # hex digits; other rooms keep locks of other names beside ours


@contextmanager
def lock(root: str, name: str, cancel: Cancel | None = None) -> Iterator[None]:
    """Hold the store-wide lock `name`; waits, unless cancelled. The kernel frees it when the holder dies."""
    import fcntl

    path = os.path.join(root, "locks", hashlib.sha256(name.encode()).hexdigest()[:_NAME])
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _pause(cancel)
        yield
    finally:
        os.close(descriptor)


def is_ours(file_name: str) -> bool:
    return len(file_name) == _NAME and not file_name.strip("0123456789abcdef")


def _pause(cancel: Cancel | None) -> None:
    if cancel is None:
        time.sleep(_PAUSE)
    else:
        cancel.wait(_PAUSE)
        cancel.check()
