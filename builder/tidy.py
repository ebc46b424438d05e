"""Tidying after builds that were killed: half-made drafts, locks nobody holds, control groups. Costs nothing when there are none."""

from __future__ import annotations

import fcntl
import os

from runtime.store.durable import remove_tree
from runtime.store.owners import is_alive
from runtime.store.store import Store


def tidy_up(store: Store) -> bool:
    """Remove what builds that were killed left half made; True when there was something. Cheap when there is not."""
    drafts = os.path.join(store.root, "drafts")
    dead = [name for name in os.listdir(drafts) if not is_alive(name.partition(".")[2])]
    for name in dead:
        remove_tree(os.path.join(drafts, name))
    if dead:
        _remove_free_locks(os.path.join(store.root, "locks"))
        from runtime.sandbox.cgroup import detect
        from runtime.sandbox.cgroup.sweep import sweep

        sweep(detect())
    return bool(dead)


def _remove_free_locks(directory: str) -> None:
    for name in os.listdir(directory):
        if not name.startswith("step-"):
            continue
        path = os.path.join(directory, name)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            # Whoever waits for a lock that goes notices, and takes the new one (builder/locks.py).
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                os.unlink(path)
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(handle)
