"""Tidying after builds that were killed: half-made things, locks nobody holds, control groups."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from runtime.store.owners import is_alive
from runtime.store.store import Store

if TYPE_CHECKING:
    from runtime.networks.networks import Networks


def tidy_up(store: Store, networks: Callable[[], Networks] | None) -> bool:
    """Remove what builds that were killed left; True when there was something. Two cheap looks when there is not."""
    if not somebody_died(store):
        return False
    store.collect()
    _remove_free_locks(os.path.join(store.root, "locks"))
    from runtime.sandbox.cgroup import detect
    from runtime.sandbox.cgroup.sweep import sweep

    sweep(detect())
    if networks is not None:
        networks().sweep()
    return True


def somebody_died(store: Store) -> bool:
    """A process that ends in order takes its drafts and leases with it."""
    drafts = os.listdir(os.path.join(store.root, "drafts"))
    owners = {name.partition(".")[2] for name in drafts}
    owners |= {row["owner"] for row in store.db.read("SELECT DISTINCT owner FROM leases")}
    if not all(is_alive(owner) for owner in owners):
        return True
    # One that was killed before it had anything else: its holder would have removed the lock.
    return any(True for _ in _free_locks(os.path.join(store.root, "locks")))


def _remove_free_locks(directory: str) -> None:
    for path in _free_locks(directory):
        # Whoever waits for a lock that goes notices, and takes the new one (builder/locks.py).
        os.unlink(path)


def _free_locks(directory: str) -> Iterator[str]:
    """Locks of steps that nobody holds; each is held while it is looked at."""
    for name in os.listdir(directory):
        if not name.startswith("step-"):
            continue
        path = os.path.join(directory, name)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                yield path
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(handle)
