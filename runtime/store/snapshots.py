"""Snapshots: immutable directories, each one layer on top of a parent's.

`snapshots/<id>/fs` is one layer in overlay form, `snapshots/<id>/fs-plain` one where that cannot be
(runtime/store/hiding.py). It is made in a draft (`drafts/<id>.<owner>/`), renamed into place, and then gets its row; it never changes again. Data need
not be on the disk for that, because a kill does not lose it: the row remembers the boot, and in a later boot a
snapshot that nobody had settled is absent until `recovery` found it whole.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from registry_client.oci.digest import Digest, chain_ids
from registry_client.values import frozen
from runtime.errors import NotFound
from runtime.store.database import Database
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.leases import Leases
from runtime.store.owners import boot_id, own_token
from runtime.store.place import Places

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.store.copies import Copies

_WHOLE = "boot IN ('', :boot)"  # see the module's docstring
_COLUMNS = "snapshots.id, snapshots.parent, snapshots.diff_id, snapshots.size, snapshots.created"
_ANCESTRY = """WITH RECURSIVE line (id, parent, depth) AS (
                 SELECT id, parent, 0 FROM snapshots WHERE id = ?
                 UNION ALL SELECT s.id, s.parent, depth + 1 FROM snapshots s JOIN line ON s.id = line.parent)
               SELECT id FROM line ORDER BY depth"""


@frozen
class Snapshot:
    """`diff_id` and `size` describe its own layer and are unknown until somebody hashed it."""

    id: str
    parent: str | None
    diff_id: Digest | None = None
    size: int = 0
    created: float = 0.0
    chain_id: Digest | None = None


class Snapshots:
    """The snapshots of one store. Whatever this object hands out is kept until the store is closed."""

    def __init__(self, root: str, database: Database, leases: Leases, places: Places) -> None:
        self._database, self._leases, self._places = database, leases, places
        self.directory = os.path.join(root, "snapshots")
        self.drafts = os.path.join(root, "drafts")
        self.mounts = os.path.join(root, "mnt")
        self._empty = os.path.join(root, "empty")
        self.made = 0  # by this process

    # --- making ---------------------------------------------------------------------------------------------------

    def prepare(self, parent: str | None = None) -> Draft:
        """A new directory on top of `parent`; a context manager that drops it unless it was committed."""
        snapshot_id = os.urandom(8).hex()
        layer = self._places.settled_form().directory
        lowers = self.lowers(parent) if parent else ()
        self._leases.keep("snapshot", snapshot_id)
        directory = os.path.join(self.drafts, f"{snapshot_id}.{own_token()}")
        with faults_of_the_host(f"cannot make a draft below {self.drafts}"):
            os.mkdir(directory, 0o711)
            try:
                upper = _make_upper(os.path.join(directory, layer), lowers)
            except OSError:
                remove_tree(directory)
                raise
        return Draft(self, snapshot_id, parent, upper, lowers)

    def adopt(self, draft: Draft, diff_id: Digest | None, size: int) -> Snapshot:
        """Rename a draft into place and record it (what `Draft.commit` does)."""
        with faults_of_the_host(f"cannot commit snapshot {draft.id}"):
            draft.remove_work()
            os.rename(draft.directory, os.path.join(self.directory, draft.id))
        self.made += 1
        row = (draft.id, draft.parent, diff_id, size, time.time(), boot_id())
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", row)
            if diff_id is not None:
                self._link_own_chain(connection, draft.id, draft.parent, diff_id)
        return self.get(draft.id)

    def identify(
        self, snapshot_id: str, diff_id: Digest, size: int = 0, *, below: str | None = None
    ) -> Snapshot:
        """Record what hashing the snapshot's layer gave, and the chain it is then known by.

        `below` is the chain it was made on, of those its parent is known by.
        """
        with self._database.transaction() as connection:
            change = "UPDATE snapshots SET diff_id = ?, size = ? WHERE id = ?"
            connection.execute(change, (diff_id, size, snapshot_id))
            self._link_own_chain(connection, snapshot_id, self.get(snapshot_id).parent, diff_id, below)
        return self.get(snapshot_id)

    def link(self, diff_ids: tuple[Digest, ...], snapshot_id: str) -> None:
        """Record that the chain of `diff_ids` is unpacked as this snapshot."""
        chain = chain_ids(diff_ids)
        self.link_chain(chain[-1], chain[-2] if chain[1:] else None, diff_ids[-1], snapshot_id)

    def link_chain(self, chain_id: str, below: str | None, diff_id: str, snapshot_id: str) -> None:
        """Record that a chain, the layer `diff_id` on the chain `below`, is unpacked as this snapshot."""
        with self._database.transaction() as connection:
            _insert_chain(connection, chain_id, below, diff_id, snapshot_id)

    def _link_own_chain(
        self,
        connection: sqlite3.Connection,
        snapshot_id: str,
        parent: str | None,
        diff_id: Digest,
        below: str | None = None,
    ) -> None:
        """One name is enough to begin with. A root has as many as there were steps on it that changed nothing, and were all
        of them handed on, every snapshot of a build would get hundreds.
        """
        if parent is not None and below is None:
            sql = "SELECT chain_id FROM chains WHERE snapshot = ? ORDER BY chain_id LIMIT 1"
            row = connection.execute(sql, (parent,)).fetchone()
            if row is None:
                return  # nobody hashed the parent yet
            below = row["chain_id"]
        chain_id = diff_id if below is None else chain_ids((Digest(below), diff_id))[-1]
        _insert_chain(connection, chain_id, below, diff_id, snapshot_id)

    # --- finding --------------------------------------------------------------------------------------------------

    def find(self, snapshot_id: str) -> Snapshot | None:
        sql = f"SELECT {_COLUMNS} FROM snapshots WHERE id = :id AND {_WHOLE}"
        return self._found(sql, {"id": snapshot_id})

    def get(self, snapshot_id: str) -> Snapshot:
        if (found := self.find(snapshot_id)) is None:
            raise NotFound(f"no snapshot {snapshot_id} in the store")
        return found

    def by_chain(self, chain_id: Digest) -> Snapshot | None:
        """What a chain of layers is unpacked as, if it is."""
        sql = f"""SELECT {_COLUMNS} FROM chains JOIN snapshots ON snapshots.id = chains.snapshot
                  WHERE chains.chain_id = :chain AND {_WHOLE} ORDER BY snapshots.created, snapshots.id LIMIT 1"""
        return self._found(sql, {"chain": chain_id})

    def by_layer(self, diff_id: Digest) -> Snapshot | None:
        """A snapshot whose own layer has this diff_id, whatever it stands on."""
        sql = f"SELECT {_COLUMNS} FROM snapshots WHERE diff_id = :layer AND {_WHOLE} ORDER BY created, id LIMIT 1"
        return self._found(sql, {"layer": diff_id})

    def _found(self, sql: str, args: dict[str, str]) -> Snapshot | None:
        with self._database.transaction() as connection:
            row = connection.execute(sql, args | {"boot": boot_id()}).fetchone()
            if row is None or not os.path.isdir(self.path(row["id"])):
                return None
            self._leases.keep("snapshot", row["id"])
            chain = connection.execute(
                "SELECT chain_id FROM chains WHERE snapshot = ?", (row["id"],)
            ).fetchone()
        chain_id = chain["chain_id"] if chain else None
        return Snapshot(row["id"], row["parent"], row["diff_id"], row["size"], row["created"], chain_id)

    def path(self, snapshot_id: str) -> str:
        """The snapshot's own layer as a directory. Never write there."""
        return f"{self.directory}/{snapshot_id}/{self._places.form.directory}"

    def ancestry(self, snapshot_id: str) -> tuple[str, ...]:
        """The snapshot and all below it, topmost first."""
        return tuple(row["id"] for row in self._database.read(_ANCESTRY, (snapshot_id,)))

    def lowers(self, snapshot_id: str) -> tuple[str, ...]:
        """Overlay lower directories of the snapshot, topmost first."""
        self.get(snapshot_id)
        return tuple(self.path(each) for each in self.ancestry(snapshot_id))

    # --- merged views ---------------------------------------------------------------------------------------------

    @property
    def copied_because(self) -> str:
        """Why merged views are made by copying, which is slower; "" when they are mounted."""
        return self._places.copies

    @cached_property
    def copies(self) -> Copies:
        from runtime.store.copies import Copies

        return Copies(self.drafts)

    def close(self) -> None:
        """Remove the copies that were kept for a next use."""
        if "copies" in self.__dict__:
            self.copies.close()

    @contextmanager
    def mounted(self, snapshot_id: str) -> Iterator[str]:
        """A merged view for reading. A snapshot without parent is shown as it lies there."""
        lowers = self.lowers(snapshot_id)
        if len(lowers) == 1:
            yield lowers[0]
            return
        shown = self.copies.view(lowers) if self.copied_because else self._overlay(lowers)
        with shown as path:
            yield path

    @contextmanager
    def merged(self, draft: Draft) -> Iterator[str]:
        """A writable view of a draft (what `Draft.merged` gives)."""
        shown = (
            draft.copied() if self.copied_because else self._overlay(draft.lowers, draft.upper, draft.work)
        )
        with shown as path:
            yield path

    def _overlay(
        self, lowers: tuple[str, ...], upper: str = "", work: str = ""
    ) -> AbstractContextManager[str]:
        from runtime.store.overlay import overlay

        return overlay(self.mounts, lowers, upper, work, empty=self._empty)


class Draft:
    """A snapshot in the making: write into `merged()`, or into `upper` in the form of its name, then `commit`."""

    def __init__(
        self,
        snapshots: Snapshots,
        snapshot_id: str,
        parent: str | None,
        upper: str,
        lowers: tuple[str, ...],
    ) -> None:
        self._snapshots = snapshots
        self.id, self.parent, self.upper, self.lowers = snapshot_id, parent, upper, lowers
        self.directory = os.path.dirname(upper)
        self._work = os.path.join(self.directory, "work")
        self._open = True

    @property
    def work(self) -> str:
        """The directory overlayfs needs beside `upper`; made for those who mount."""
        with suppress(FileExistsError):
            os.mkdir(self._work)
        return self._work

    def remove_work(self) -> None:
        remove_tree(self._work)

    @contextmanager
    def merged(self) -> Iterator[str]:
        """The file system as it will be, writable, at a path."""
        with self._snapshots.merged(self) as path:
            yield path

    def copied(
        self, *, skeleton: str = "", check: Callable[[], None] | None = None
    ) -> AbstractContextManager[str]:
        """`merged()` as a directory of its own, whatever can be mounted; `skeleton` shows where nothing else is."""
        becomes = self._snapshots.path(self.id)
        more = {} if check is None else {"check": check}
        return self._snapshots.copies.writable(
            self.lowers, self.upper, skeleton=skeleton, becomes=becomes, **more
        )

    def commit(self, *, diff_id: Digest | None = None, size: int = 0, empty: bool = False) -> Snapshot:
        """Make it a snapshot. With `empty` nothing was written and the parent stands for it."""
        if empty and self.parent is not None:
            self.discard()
            return self._snapshots.get(self.parent)
        self._open = False
        return self._snapshots.adopt(self, diff_id, size)

    def discard(self) -> None:
        if self._open:
            self._open = False
            remove_tree(self.directory)

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()


def _insert_chain(
    connection: sqlite3.Connection, chain_id: str, parent: str | None, diff_id: str, snapshot: str
) -> None:
    row = (chain_id, snapshot, parent, diff_id)
    connection.execute("INSERT OR IGNORE INTO chains VALUES (?, ?, ?, ?)", row)


def _make_upper(place: str, lowers: Sequence[str]) -> str:
    """The directory of a layer; it is what a container sees as the attributes of `/`."""
    os.mkdir(place)
    os.chmod(place, 0o755)
    if lowers:
        copy_attributes(lowers[0], place)
    return place


def copy_attributes(source: str, target: str) -> None:
    """Owner, mode, times and visible extended attributes of a directory."""
    status = os.lstat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
