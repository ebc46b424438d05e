"""Which of the cache goes when nobody says so: the default policies, and the collection after a build (FEATURES B-12).

The policies are BuildKit's, in its order. The collection runs after a build, at most once an hour, in one process at a
time, and looks first, cheaply, whether anything could be due. It never fails a build.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from runtime.errors import PipeError
from runtime.events import Emit, Warned
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.prune import Disk, Policy, Pruned

INTERVAL = 3600.0
_HOUR = 3600.0
_DAY = 24 * _HOUR
_SHORT = 48 * _HOUR
_GB = 10**9
_EASY_BYTES = 512 * 10**6


def default_policies(disk: Disk) -> tuple[Policy, ...]:
    """What is easily made again after two days, what is unused after 60, then the least recently used above the caps."""
    from builder.prune import GIT, HTTP, MOUNT, Policy

    reserved = min(disk.total // 10, 10 * _GB)
    most, free = min(disk.total * 8 // 10, 200 * _GB), disk.total // 5
    return (
        Policy(kinds=(MOUNT, HTTP, GIT), unused_seconds=_SHORT, max_used=_EASY_BYTES),
        Policy(unused_seconds=60 * _DAY, reserved=reserved),
        Policy(reserved=reserved, max_used=most, min_free=free),
        Policy(everything=True, reserved=reserved, max_used=most, min_free=free),
    )


def collect_by_default(store: Store, *, dry_run: bool = False) -> Pruned:
    """Apply the default policies now."""
    from builder.prune import disk_of, prune

    policies = default_policies(disk_of(store))
    planned = prune(store, *policies, dry_run=True)
    return planned if dry_run or not planned.entries else prune(store, *policies)


def is_due(store: Store) -> bool:
    """Whether the last look was an hour ago: one stat(2)."""
    try:
        return time.time() - os.stat(_stamp(store)).st_mtime >= INTERVAL
    except FileNotFoundError:
        _touch(store)  # a new store has nothing to collect
        return False


def collect_if_due(store: Store, emit: Emit, node: str) -> None:
    """After a build: collect what the default policies say, unless somebody did a while ago or does now."""
    if not is_due(store):
        return
    with open(_stamp(store), "r+b") as stamp:
        try:
            fcntl.flock(stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _touch(store)
        try:
            if _may_be_worth_it(store):
                collect_by_default(store)
        except PipeError as error:
            emit(Warned(node=node, message=f"the build cache was not collected: {error.message}"))


def _may_be_worth_it(store: Store) -> bool:
    """False when no policy could want anything: nothing old, and the caps far away. Reads no directory."""
    from builder.prune import disk_of

    old = time.time_ns() - int(_SHORT * 10**9)
    sql = """SELECT 1 FROM cache_records WHERE used < :old UNION ALL SELECT 1 FROM cache_mounts WHERE used < :old LIMIT 1"""
    if store.db.one(sql, {"old": old}) is not None:
        return True
    row = store.db.one("SELECT total(size) AS size FROM cache_records")
    disk = disk_of(store)
    used = row["size"] if row is not None else 0
    caps = default_policies(disk)[-1]
    return bool(used > (caps.max_used or 0) or disk.free < caps.min_free)


def _stamp(store: Store) -> str:
    return os.path.join(store.root, "locks", "cache-collected")


def _touch(store: Store) -> None:
    handle = os.open(_stamp(store), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.utime(handle)
    finally:
        os.close(handle)
