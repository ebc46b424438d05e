"""The store as one thing: its directories, database, content, snapshots and leases. Opening it is cheap."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from runtime.errors import HostFault
from runtime.store.content import Content
from runtime.store.database import Database
from runtime.store.durable import faults_of_the_host, replace_file, sync_filesystem
from runtime.store.leases import Leases
from runtime.store.owners import boot_id
from runtime.store.place import Places
from runtime.store.recovery import needs_recovery, recover
from runtime.store.snapshots import Snapshots

if TYPE_CHECKING:
    from runtime.store.collect import Collected

_WRITTEN_BY_ITSELF = 60.0  # seconds; twice vm.dirty_expire_centisecs
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
_DIRECTORIES = (
    "blobs/sha256", "ingest", "snapshots", "drafts", "mnt", "empty", "containers", "volumes", "cachemounts", "runs", "locks",
)  # fmt: skip


class Store:
    """One directory, shared by any number of processes. A context manager; closing gives up its leases."""

    def __init__(self, root: str, device: int, snapshots: str = "auto") -> None:
        self.root = root
        self.db = Database(os.path.join(root, "pipe.db"))
        self.leases = Leases(self.db)
        self.content = Content(root)
        self.snapshots = Snapshots(root, self.db, self.leases, Places(root, device, snapshots))

    @classmethod
    def open(cls, root: str, *, snapshots: str = "auto") -> Store:
        """Open the store at `root`, made and migrated where needed. `snapshots` is one of `place.SNAPSHOTS`."""
        root = os.path.abspath(root)
        layout = os.path.join(root, "oci-layout")
        with faults_of_the_host(f"cannot open the store {root}"):
            try:
                device = os.stat(layout).st_dev
            except FileNotFoundError:
                _make(root)
                device = os.stat(layout).st_dev
            store = cls(root, device, snapshots)
        if needs_recovery(store):
            recover(store)
        return store

    def collect(self) -> Collected:
        """Remove what nothing needs and nobody holds (see `runtime.store.collect`)."""
        from runtime.store.collect import collect

        return collect(self)

    def settle(self) -> None:
        """Get snapshots and built images to the disk and record that they are: now they outlive a power loss."""
        boot = boot_id()
        unsettled = {
            table: [
                (row["id"],)
                for row in self.db.read(f"SELECT id FROM {table} WHERE boot <> '' AND boot = ?", (boot,))
            ]
            for table in ("snapshots", "images")
        }
        if not any(unsettled.values()):
            return
        with faults_of_the_host(f"cannot sync {self.root}"):
            sync_filesystem(self.root)
        with self.db.transaction(durable=True) as connection:
            for table, ids in unsettled.items():
                connection.executemany(f"UPDATE {table} SET boot = '' WHERE id = ?", ids)

    def _settle_if_cheap(self) -> None:
        """What was made a while ago the kernel has written by itself, so a sync has little left to do."""
        sql = "SELECT 1 FROM snapshots WHERE boot <> '' AND boot = ? AND created < ? LIMIT 1"
        if self.snapshots.made and self.db.one(sql, (boot_id(), time.time() - _WRITTEN_BY_ITSELF)):
            self.settle()

    def close(self) -> None:
        try:
            self.leave()
        finally:
            self.db.close()

    def leave(self) -> None:
        """Let go of everything but the connections: a process at its end saves the last one's checkpoint, 3 ms."""
        try:
            self.snapshots.close()
            self._settle_if_cheap()
            self.leases.release()
        except HostFault:
            # On a full disk, say. Whoever closes has his own error to tell; leases end with the process anyway.
            import logging

            logging.getLogger("pipe.store").info("leases of %s stay", self.root, exc_info=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _make(root: str) -> None:
    # Snapshots hold setuid programs of old and unpatched images: no other user of the host may reach them.
    os.makedirs(root, mode=0o700, exist_ok=True)
    for name in _DIRECTORIES:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    from runtime.store.reserve import keep

    keep(root)
    index = os.path.join(root, "index.json")
    if not os.path.exists(index):
        replace_file(index, _EMPTY_INDEX)
    # Last: it says that the layout is complete.
    replace_file(os.path.join(root, "oci-layout"), _LAYOUT)
