"""After the machine was booted anew: what was not known to be on the disk is looked at, and kept if it is whole.

A snapshot of an earlier boot that nobody settled may have lost data, if the power failed, or may be fine, if the
machine was shut down in order. Its diff_id tells: the layer is hashed once more. This happens once per boot, for what
was made shortly before.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from runtime.store.locks import lock
from runtime.store.owners import boot_id

if TYPE_CHECKING:
    from runtime.store.store import Store

_UNSURE = "boot <> '' AND boot <> ?"


def needs_recovery(store: Store) -> bool:
    tables = (f"SELECT 1 FROM {table} WHERE {_UNSURE}" for table in ("snapshots", "images"))
    return store.db.one(" UNION ALL ".join(tables) + " LIMIT 1", (boot_id(), boot_id())) is not None


def recover(store: Store) -> None:
    """Keep what is whole, forget the rest. Other processes meanwhile see neither."""
    with lock(store.root, "recovery"):
        rows = store.db.read(f"SELECT * FROM snapshots WHERE {_UNSURE}", (boot_id(),))
        unsure = {row["id"]: row for row in rows}
        whole: dict[str, bool] = {}
        for each in unsure:
            _judge(store, each, unsure, whole)
        with store.db.transaction(durable=True) as connection:
            kept = [(each,) for each, good in whole.items() if good]
            connection.executemany("UPDATE snapshots SET boot = '' WHERE id = ?", kept)
            _judge_images(store, connection)


def _judge(store: Store, each: str, unsure: dict[str, sqlite3.Row], whole: dict[str, bool]) -> bool:
    """Whether a snapshot and all below it are whole; every one is looked at once."""
    if each not in unsure:
        return True
    if each not in whole:
        row = unsure[each]
        below = row["parent"] is None or _judge(store, row["parent"], unsure, whole)
        whole[each] = below and _is_whole(store, row)
    return whole[each]


def _is_whole(store: Store, row: sqlite3.Row) -> bool:
    from runtime.errors import HostFault
    from runtime.store.layers import hash_layer

    path = store.snapshots.path(row["id"])
    if row["diff_id"] is None or not os.path.isdir(path):
        return False
    lowers = [store.snapshots.path(each) for each in store.snapshots.ancestry(row["id"])[1:]]
    try:
        # Whoever hashed it may or may not have left out directories that are as they are below.
        return any(hash_layer(path, lowers=below).diff_id == row["diff_id"] for below in ((), lowers))
    except HostFault:
        return False  # cannot even be read


def _judge_images(store: Store, connection: sqlite3.Connection) -> None:
    """A built image is whole if each of its layers is, as a snapshot or as a blob."""
    for row in connection.execute(f"SELECT id FROM images WHERE {_UNSURE}", (boot_id(),)).fetchall():
        chains = connection.execute("SELECT * FROM image_layers WHERE image = ?", (row["id"],)).fetchall()
        if all(_has_layer(store, connection, each) for each in chains):
            connection.execute("UPDATE images SET boot = '' WHERE id = ?", (row["id"],))


def _has_layer(store: Store, connection: sqlite3.Connection, layer: sqlite3.Row) -> bool:
    sql = """SELECT 1 FROM chains JOIN snapshots ON snapshots.id = chains.snapshot
             WHERE chain_id = ? AND boot IN ('', ?)"""
    if connection.execute(sql, (layer["chain_id"], boot_id())).fetchone():
        return True
    forms = connection.execute("SELECT digest FROM layers WHERE diff_id = ?", (layer["diff_id"],))
    return any(store.content.has(form["digest"]) for form in forms.fetchall())
