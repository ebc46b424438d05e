"""One builder for one step: a file lock per definition, so that concurrent builds wait for each other and then hit.

flock(2) belongs to the open file, so it works between the threads of a process too, and ends with a killed one. A lock
file is removed by its holder; whoever waited for a removed file notices and takes the new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os

from runtime.cancel import Cancel

_PAUSE = 0.01


class StepLock:
    """Held from `acquire` to `release`."""

    def __init__(self, directory: str, definition: str) -> None:
        name = hashlib.sha256(definition.encode()).hexdigest()[:32]
        self._path = os.path.join(directory, f"step-{name}")
        self._handle = -1

    def acquire(self, cancel: Cancel) -> bool:
        """Take the lock; True when somebody else had it meanwhile."""
        waited = False
        while True:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                waited = True
                cancel.wait(_PAUSE)
                cancel.check()
                continue
            if self._is_current(handle):
                self._handle = handle
                return waited
            os.close(handle)

    def _is_current(self, handle: int) -> bool:
        try:
            return os.stat(self._path).st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it up; at most once does anything."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.unlink(self._path)
            os.close(handle)
