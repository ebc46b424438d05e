"""What is left to do when a container has ended for good: give its network back and, if it was to go, remove it.

Everything here can be done again, by the starter, the shim or a sweep, whoever gets to it.
"""

from __future__ import annotations

import os

from runtime.networks.networks import Networks
from runtime.store.durable import remove_tree
from runtime.store.store import Store
from runtime.volumes import Volumes


def clean_up(root: str, identifier: str, *, remove: bool) -> None:
    """For a shim whose starter is gone: open the store only now."""
    with Store.open(root) as store:
        networks = Networks(store)
        networks.release(identifier)
        if remove:
            remove_container(store, Volumes(store), identifier, volumes_too=True)


def remove_container(store: Store, volumes: Volumes, identifier: str, *, volumes_too: bool = False) -> None:
    """The row first: then nobody finds it any more, and what a kill leaves of its directory is swept."""
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM containers WHERE id = ?", (identifier,))
        volumes.leave(identifier, remove_anonymous=volumes_too)
    directory = os.path.join(store.root, "containers", identifier)
    try:
        # Renamed first: what a shim still writes on its way out does not get into a directory that is being emptied.
        os.rename(directory, directory + ".gone")
    except FileNotFoundError:
        return
    remove_tree(directory + ".gone")
