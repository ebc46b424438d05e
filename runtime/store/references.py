"""Which blobs the store's images lead to: what `index.json` names, manifests and their parts, known forms of layers."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from registry_client.oci.digest import Digest
from runtime.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from runtime.store.store import Store

_MANIFEST_LIMIT = 4 << 20


def needed_blobs(store: Store, connection: sqlite3.Connection) -> set[str]:
    """Everything a blob may be needed for: manifests of images with all they name, root views, living leases."""
    from runtime.store.collect import roots

    needed = roots(connection, "blob") | store.leases.held("blob")
    # An image without a manifest has only its layers' blobs, if it was loaded or stands on a pulled base.
    sql = """SELECT digest FROM layers JOIN image_layers USING (diff_id) JOIN images ON images.id = image
             WHERE images.manifest IS NULL"""
    needed |= {row["digest"] for row in connection.execute(sql)}
    starts = {row["digest"] for row in connection.execute("SELECT digest FROM manifests")}
    for digest in starts | needed:
        _mark(store, Digest(digest), needed)
    return needed


def _mark(store: Store, digest: Digest, needed: set[str]) -> None:
    """Mark a blob, and what it names if it is a manifest or an index."""
    waiting = [digest]
    seen: set[str] = set()
    while waiting:
        at = waiting.pop()
        needed.add(at)
        if at not in seen:
            seen.add(at)
            waiting.extend(_named_by(store, at))


def _named_by(store: Store, digest: Digest) -> list[Digest]:
    try:
        if store.content.size(digest) > _MANIFEST_LIMIT:
            return []
        record = json.loads(store.content.read(digest, _MANIFEST_LIMIT))
    except (NotFound, InvalidInput, ValueError, RecursionError):
        return []  # not here, or no manifest: it leads nowhere
    if not isinstance(record, dict) or record.get("schemaVersion") != 2:
        return []
    parts: list[Any] = [record.get("config"), *_entries(record, "layers"), *_entries(record, "manifests")]
    return [
        Digest(part["digest"])
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("digest"), str)
    ]


def _entries(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []
