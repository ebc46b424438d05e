"""The store as one thing: its directories, database, content, snapshots and leases. Opening it is cheap."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runtime.store.content import Content
from runtime.store.database import Database
from runtime.store.durable import faults_of_the_host, replace_file
from runtime.store.leases import Leases
from runtime.store.snapshots import Snapshots

if TYPE_CHECKING:
    from runtime.store.collect import Collected

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
_DIRECTORIES = (
    "blobs/sha256", "ingest", "snapshots", "drafts", "mnt", "empty", "containers", "volumes", "cachemounts", "runs", "locks",
)  # fmt: skip


class Store:
    """One directory, shared by any number of processes. A context manager; closing gives up its leases."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.db = Database(os.path.join(root, "pipe.db"))
        self.leases = Leases(self.db)
        self.content = Content(root)
        self.snapshots = Snapshots(root, self.db, self.leases)

    @classmethod
    def open(cls, root: str) -> Store:
        """Open the store at `root`, made and migrated where needed."""
        root = os.path.abspath(root)
        with faults_of_the_host(f"cannot open the store {root}"):
            if not os.path.exists(os.path.join(root, "oci-layout")):
                _make(root)
            return cls(root)

    def collect(self) -> Collected:
        """Remove what nothing needs and nobody holds (see `runtime.store.collect`)."""
        from runtime.store.collect import collect

        return collect(self)

    def close(self) -> None:
        self.leases.release()
        self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _make(root: str) -> None:
    # Snapshots hold setuid programs of old and unpatched images: no other user of the host may reach them.
    os.makedirs(root, mode=0o700, exist_ok=True)
    for name in _DIRECTORIES:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    index = os.path.join(root, "index.json")
    if not os.path.exists(index):
        replace_file(index, _EMPTY_INDEX)
    # Last: it says that the layout is complete.
    replace_file(os.path.join(root, "oci-layout"), _LAYOUT)
