"""What the build cache holds and how it is made smaller: `pipe cache du|ls|prune`, and tidying after killed builds.

Pruning deletes records; the store's collector then frees what nothing else needs. What a running build uses is leased
by it and stays. What a policy would remove is decided without touching anything, so it can be shown first.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable

from registry_client.values import frozen
from runtime.store.durable import remove_tree
from runtime.store.store import Store

_SECOND = 10**9
MOUNT, HTTP, GIT = "cache mount", "http", "git"


@frozen
class Entry:
    """A record, or a cache mount. `shared` is True while an image needs its layer too."""

    id: str
    kind: str
    label: str
    size: int
    made: int
    used: int
    uses: int
    shared: bool = False
    key: str = ""  # the whole id


@frozen
class Policy:
    """What to remove: entries unused for `unused_seconds`, of some ids or kinds; `everything` includes what images share.

    With caps the least recently used go until no more than `max_used` is left and `min_free` of the disk is free, but
    what is left does not get below `reserved`. Without caps all goes that is meant.
    """

    everything: bool = False
    unused_seconds: float = 0.0
    ids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    max_used: int | None = None
    reserved: int | None = None
    min_free: int = 0


@frozen
class Disk:
    """The file system of the store, in bytes."""

    total: int
    free: int


@frozen
class Pruned:
    entries: tuple[Entry, ...]
    freed: int


def disk_of(store: Store) -> Disk:
    status = os.statvfs(store.root)
    return Disk(status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail)


def entries(store: Store) -> list[Entry]:
    """All there is, last used first."""
    found = _records(store) + _mounts(store)
    return sorted(found, key=lambda entry: (entry.used, entry.key), reverse=True)


def _records(store: Store) -> list[Entry]:
    sql = """SELECT key, kind, label, iif(snapshot = '', 0, size) AS size, made, used, uses,
                    chain_id IN (SELECT chain_id FROM image_layers) AS shared FROM cache_records"""
    return [
        Entry(
            row["key"].removeprefix("sha256:")[:12],
            row["kind"].partition(".")[0],
            row["label"],
            row["size"],
            row["made"],
            row["used"],
            row["uses"],
            bool(row["shared"]),
            row["key"],
        )
        for row in store.db.read(sql)
    ]


def _mounts(store: Store) -> list[Entry]:
    found = []
    for row in store.db.read("SELECT id, name, made, used FROM cache_mounts"):
        size = _size_of(os.path.join(store.root, "cachemounts", row["id"]))
        found.append(
            Entry(short_id(row["id"]), MOUNT, row["name"], size, row["made"], row["used"], 0, key=row["id"])
        )
    return found


def on_disk(store: Store) -> int:
    """What all of it takes of the disk. Steps share unchanged files, which count in the size of each."""
    from runtime.store.usage import size_of

    rows = store.db.read("SELECT DISTINCT snapshot FROM cache_records WHERE snapshot != ''")
    places = [store.snapshots.path(row["snapshot"]) for row in rows]
    mounts = store.db.read("SELECT id FROM cache_mounts")
    return size_of(*places, *(os.path.join(store.root, "cachemounts", row["id"]) for row in mounts))


def short_id(identity: str) -> str:
    """Twelve digits, and the number of a private mount that was made beside one in use."""
    digits, dash, number = identity.partition("-")
    return digits[:12] + dash + number


def _size_of(directory: str) -> int:
    total = 0
    for place, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # a running step removed it
    return total


def prune(store: Store, *policies: Policy, dry_run: bool = False) -> Pruned:
    """Remove what the policies say, one after the other, and collect. With `dry_run` only say what would go."""
    doomed = doomed_by(entries(store), policies, time.time_ns(), disk_of(store))
    if dry_run:
        return Pruned(tuple(doomed), sum(entry.size for entry in doomed if not entry.shared))
    removed = tuple(entry for entry in doomed if _remove(store, entry))
    mounts = sum(entry.size for entry in removed if entry.kind == MOUNT)
    return Pruned(removed, store.collect().freed + mounts)


def doomed_by(all_entries: list[Entry], policies: Iterable[Policy], now: int, disk: Disk) -> list[Entry]:
    """Pure: the entries to remove, by each policy the least recently used first."""
    doomed: list[Entry] = []
    left = all_entries
    for policy in policies:
        gone = _doomed(left, policy, now, Disk(disk.total, disk.free + sum(each.size for each in doomed)))
        keys = {(entry.kind, entry.key) for entry in gone}
        left = [entry for entry in left if (entry.kind, entry.key) not in keys]
        doomed += gone
    return doomed


def _doomed(all_entries: list[Entry], policy: Policy, now: int, disk: Disk) -> list[Entry]:
    chosen = [entry for entry in reversed(all_entries) if _is_meant(entry, policy, now)]
    total = sum(entry.size for entry in all_entries if policy.everything or not entry.shared)
    limit = _limit(policy, total, disk)
    if limit is None:
        return chosen
    doomed = []
    for entry in chosen:
        if total <= limit:
            break
        doomed.append(entry)
        total -= entry.size
    return doomed


def _limit(policy: Policy, total: int, disk: Disk) -> int | None:
    """How many bytes may stay; None when the policy has no caps."""
    if policy.max_used is None and policy.reserved is None and not policy.min_free:
        return None
    limits = [] if policy.max_used is None else [policy.max_used]
    if policy.min_free:
        limits.append(total - max(0, policy.min_free - disk.free))
    return max(min(limits, default=0), policy.reserved or 0)


def _is_meant(entry: Entry, policy: Policy, now: int) -> bool:
    if policy.ids and not any(is_named(entry, wanted) for wanted in policy.ids):
        return False
    if policy.kinds and entry.kind not in policy.kinds:
        return False
    if now - entry.used < policy.unused_seconds * _SECOND:
        return False
    return policy.everything or bool(policy.ids) or not entry.shared


def is_named(entry: Entry, wanted: str) -> bool:
    """By a prefix of its id as it is shown, or by its whole id."""
    return entry.id.startswith(wanted) or entry.key.removeprefix("sha256:").startswith(
        wanted.removeprefix("sha256:")
    )


def _remove(store: Store, entry: Entry) -> bool:
    if entry.kind == MOUNT:
        return _remove_mount(store, entry.key)
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM cache_records WHERE key = ?", (entry.key,))
    return True


def _remove_mount(store: Store, identity: str) -> bool:
    """A cache mount that a step is using stays."""
    place = os.path.join(store.root, "cachemounts", identity)
    if os.path.isdir(place):
        handle = os.open(os.path.join(place, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(os.path.join(place, "data"))
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM cache_mounts WHERE id = ?", (identity,))
    return True
