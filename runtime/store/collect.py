"""Garbage collection: mark what is needed, sweep the rest. Safe beside running builds, pulls and other collectors.

Needed is what an image, a root view or a living lease leads to. A root view is how a room says what it needs: every
view called `roots_<room>` with columns `kind` (snapshot, image or blob) and `thing` is read. Rows go first, in a
durable transaction, so nobody can find a thing any more; then its files go. Half-made things go when their owner is
dead. Every step can be interrupted and done again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator

from registry_client.values import frozen
from runtime.linux import mounts
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.index import update_index
from runtime.store.locks import is_ours
from runtime.store.owners import boot_id, is_alive
from runtime.store.store import Store

# The snapshot that stands for each chain of an image: the one `Snapshots.by_chain` finds.
_OF_IMAGES = """SELECT (SELECT c.snapshot FROM chains c JOIN snapshots s ON s.id = c.snapshot
                        WHERE c.chain_id = l.chain_id ORDER BY s.created, s.id LIMIT 1) AS snapshot
                FROM (SELECT DISTINCT chain_id FROM image_layers) l"""
# A partial download is worth keeping for a while: its owner may have been killed to be started again.
_PARTIAL_SECONDS = 24 * 3600.0
_LOCK_SECONDS = 3600.0


@frozen
class Collected:
    """What went. `freed` counts the bytes the disk got back."""

    snapshots: int = 0
    blobs: int = 0
    drafts: int = 0
    freed: int = 0


def collect(store: Store, *, partial_seconds: float = _PARTIAL_SECONDS) -> Collected:
    """Remove what nothing needs and nobody holds."""
    store.leases.sweep()
    drafts, freed = _sweep_half_made(store, partial_seconds)
    with store.db.transaction(durable=True) as connection:
        _forget_lost_images(connection)
        snapshots = _forget_snapshots(store, connection)
    freed += sum(remove_tree(os.path.join(store.snapshots.directory, each)) for each in snapshots)
    freed += _sweep_rowless(store)
    # Whoever removed a tag may have died before this: the file must not name what goes now.
    update_index(store)
    blobs, blob_bytes = _sweep_blobs(store)
    return Collected(len(snapshots), blobs, drafts, freed + blob_bytes)


# --- snapshots ------------------------------------------------------------------------------------------------------


def root_views(connection: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_schema WHERE type = 'view' AND name LIKE 'roots\\_%' ESCAPE '\\' ORDER BY name"
    return [row["name"] for row in connection.execute(sql)]


def roots(connection: sqlite3.Connection, kind: str, views: Iterable[str] | None = None) -> set[str]:
    """Things of a kind that the rooms' root views name."""
    found: set[str] = set()
    for view in root_views(connection) if views is None else views:
        rows = connection.execute(f'SELECT thing FROM "{view}" WHERE kind = ?', (kind,))
        found.update(row["thing"] for row in rows if row["thing"])
    return found


def _forget_lost_images(connection: sqlite3.Connection) -> None:
    """Images whose layers were not on the disk yet when the power went."""
    lost = "boot NOT IN ('', ?)"
    connection.execute(f"DELETE FROM tags WHERE image IN (SELECT id FROM images WHERE {lost})", (boot_id(),))
    connection.execute(f"DELETE FROM images WHERE {lost}", (boot_id(),))


def _forget_snapshots(store: Store, connection: sqlite3.Connection) -> list[str]:
    """Delete the rows of snapshots nothing needs; their ids, children before parents."""
    needed = roots(connection, "snapshot") | store.leases.held("snapshot")
    needed |= {row["snapshot"] for row in connection.execute(_OF_IMAGES)}
    rows = connection.execute("SELECT id, parent, boot FROM snapshots").fetchall()
    # What was lost with the power is in no parent's line either: whatever stood on it was lost as well.
    parents = {row["id"]: row["parent"] for row in rows if row["boot"] in ("", boot_id())}
    lost = {row["id"]: row["parent"] for row in rows if row["id"] not in parents}
    marked: set[str] = set()
    for each in needed:
        at: str | None = each
        while at is not None and at in parents and at not in marked:
            marked.add(at)
            at = parents[at]
    doomed = _children_first([*lost, *(each for each in parents if each not in marked)], parents | lost)
    connection.executemany("DELETE FROM snapshots WHERE id = ?", [(each,) for each in doomed])
    return doomed


def _children_first(ids: list[str], parents: dict[str, str | None]) -> list[str]:
    def depth(each: str) -> int:
        above, steps = parents[each], 0
        while above is not None:
            above, steps = parents.get(above), steps + 1
        return steps

    return sorted(ids, key=depth, reverse=True)


def _sweep_rowless(store: Store) -> int:
    """Directories in place whose row never came, or whose row went and the sweeper with it."""
    freed = 0
    for name in _names(store.snapshots.directory):
        with store.db.transaction() as connection:
            row = connection.execute("SELECT 1 FROM snapshots WHERE id = ?", (name,)).fetchone()
            wanted = row is not None or name in store.leases.held("snapshot")
        # An id is drawn once: a directory nobody wanted a moment ago can not be wanted now.
        if not wanted:
            freed += remove_tree(os.path.join(store.snapshots.directory, name))
    return freed


# --- half-made things -----------------------------------------------------------------------------------------------


def _sweep_half_made(store: Store, partial_seconds: float) -> tuple[int, int]:
    drafts = freed = 0
    for path in _dead(store.snapshots.mounts):
        _detach(path)
    for path in _dead(store.snapshots.drafts):
        drafts += 1
        freed += remove_tree(path)
    for path in _dead(store.content.ingest):
        freed += remove_tree(path)
    for name in _names(store.content.ingest):
        if "." not in name:
            freed += _remove_unlocked(os.path.join(store.content.ingest, name), partial_seconds)
    # Nothing's safety rests on the locks of `locks.lock`, so one that goes between an open and a flock does no harm.
    locks = os.path.join(store.root, "locks")
    for name in _names(locks):
        if is_ours(name):
            _remove_unlocked(os.path.join(locks, name), _LOCK_SECONDS)
    return drafts, freed


def _dead(directory: str) -> Iterator[str]:
    """Entries called `<id>.<owner>` whose owner is no more."""
    for name in _names(directory):
        _, dot, owner = name.partition(".")
        if dot and not is_alive(owner):
            yield os.path.join(directory, name)


def _detach(path: str) -> None:
    with faults_of_the_host(f"cannot remove the mount {path}"):
        try:
            mounts.umount(path, mounts.MNT_DETACH)
        except OSError:
            pass  # EINVAL: not mounted here; it went with its owner's namespace
        os.rmdir(path)


def _remove_unlocked(path: str, seconds: float) -> int:
    """Remove a partial blob or a lock that nobody holds and nobody touched for a while."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_mtime > time.time() - seconds:
            return 0
        return remove_tree(path)
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)


def _names(directory: str) -> list[str]:
    with faults_of_the_host(f"cannot read {directory}"):
        return sorted(os.listdir(directory))


# --- blobs ----------------------------------------------------------------------------------------------------------


def _sweep_blobs(store: Store) -> tuple[int, int]:
    """Blobs that no image, root or lease names: moved aside while nobody can lease one, then deleted."""
    from runtime.store.references import needed_blobs

    with store.db.transaction(durable=True) as connection:
        needed = needed_blobs(store, connection)
        doomed = [digest for digest in store.content.digests() if digest not in needed]
        connection.executemany("DELETE FROM layers WHERE digest = ?", [(digest,) for digest in doomed])
        aside = [path for digest in doomed if (path := store.content.set_aside(digest))]
    return len(aside), sum(remove_tree(path) for path in aside)
