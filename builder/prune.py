"""What the build cache holds and how it is made smaller: `pipe cache du|ls|prune`, and tidying after killed builds.

Pruning deletes records; the store's collector then frees what nothing else needs. What a running build uses is leased
by it and stays.
"""

from __future__ import annotations

import fcntl
import os
import time

from registry_client.values import frozen
from runtime.store.durable import remove_tree
from runtime.store.store import Store

_SECOND = 10**9
MOUNT = "cache mount"


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


@frozen
class Policy:
    """What to remove: entries unused for `unused_seconds`, of some ids or kinds; `everything` includes what images share.

    With `keep_bytes` the least recently used go until no more than that is left.
    """

    everything: bool = False
    unused_seconds: float = 0.0
    keep_bytes: int | None = None
    ids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@frozen
class Pruned:
    entries: tuple[Entry, ...]
    freed: int


def entries(store: Store) -> list[Entry]:
    """All there is, last used first."""
    found = _records(store) + _mounts(store)
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def _records(store: Store) -> list[Entry]:
    sql = """SELECT key, kind, label, size, made, used, uses,
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
        )
        for row in store.db.read(sql)
    ]


def _mounts(store: Store) -> list[Entry]:
    found = []
    for row in store.db.read("SELECT id, name, made, used FROM cache_mounts"):
        size = _size_of(os.path.join(store.root, "cachemounts", row["id"]))
        found.append(Entry(row["id"][:12], MOUNT, row["name"], size, row["made"], row["used"], 0))
    return found


def _size_of(directory: str) -> int:
    total = 0
    for place, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # a running step removed it
    return total


def prune(store: Store, policy: Policy) -> Pruned:
    """Remove what the policy says and collect."""
    doomed = _doomed(entries(store), policy, time.time_ns())
    removed = tuple(entry for entry in doomed if _remove(store, entry))
    mounts = sum(entry.size for entry in removed if entry.kind == MOUNT)
    return Pruned(removed, store.collect().freed + mounts)


def _doomed(all_entries: list[Entry], policy: Policy, now: int) -> list[Entry]:
    """Pure: the entries to remove, least recently used first."""
    chosen = [entry for entry in reversed(all_entries) if _is_meant(entry, policy, now)]
    if policy.keep_bytes is None:
        return chosen
    left = sum(entry.size for entry in all_entries)
    doomed = []
    for entry in chosen:
        if left <= policy.keep_bytes:
            break
        doomed.append(entry)
        left -= entry.size
    return doomed


def _is_meant(entry: Entry, policy: Policy, now: int) -> bool:
    if policy.ids and not any(entry.id.startswith(wanted) for wanted in policy.ids):
        return False
    if policy.kinds and entry.kind not in policy.kinds:
        return False
    if now - entry.used < policy.unused_seconds * _SECOND:
        return False
    return policy.everything or bool(policy.ids) or not entry.shared


def _remove(store: Store, entry: Entry) -> bool:
    if entry.kind == MOUNT:
        return _remove_mount(store, entry.id)
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM cache_records WHERE key LIKE ?", (f"sha256:{entry.id}%",))
    return True


def _remove_mount(store: Store, prefix: str) -> bool:
    """A cache mount that a step is using stays."""
    row = store.db.one("SELECT id FROM cache_mounts WHERE id LIKE ?", (f"{prefix}%",))
    if row is None:
        return False
    place = os.path.join(store.root, "cachemounts", row["id"])
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
        connection.execute("DELETE FROM cache_mounts WHERE id = ?", (row["id"],))
    return True
