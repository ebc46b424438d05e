"""The records of what was built: found by key, kept with the named fields of the key.

A record whose snapshot is gone is worth nothing and is taken for absent. One that never had any is of a step that was
found elsewhere and whose files nobody needed: it serves as long as that stays so. Records of a build are counted as used
in one go at its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.content import Content
from builder.keys import Shape
from builder.lines import pieces_of, put_pieces
from registry_client.oci.digest import Digest
from registry_client.values import frozen
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.sharing.imports import Imports


@frozen
class Record:
    """One step that was done."""

    key: str
    label: str
    snapshot: str
    diff_id: Digest
    chain_id: Digest
    made: int  # nanoseconds
    size: int


@frozen
class Before:
    """An earlier run of a step: where its layer lies, which stretches it copied, which pieces of lines it has."""

    layer: str
    stretches: frozenset[bytes]
    pieces: Mapping[bytes, int]


class Cache:
    """The cache records of one store."""

    def __init__(self, store: Store) -> None:
        self._store, self._database = store, store.db
        self._used: list[str] = []
        self._made: list[str] = []
        self.imports: Imports | None = None  # where to look for what is not known here
        self.files_only = False  # offer no step whose files were never fetched
        self.contents: dict[
            tuple[str, str], str
        ] = {}  # content digests this build used, by chain and selector

    def may_hit(self, shape: Shape) -> bool:
        """False when no record has this shape, so that no key of it can be found."""
        return self.newest(shape) != 0

    def newest(self, shape: Shape) -> int:
        """The number of the newest record of a shape, 0 when there is none: as long as it stays, no look finds more."""
        sql = "SELECT max(rowid) AS number FROM cache_records WHERE shape = ?"
        row = self._database.one(sql, (shape.digest,))
        return 0 if row is None or row["number"] is None else int(row["number"])

    def find(self, key: str) -> Record | None:
        """The record, its snapshot leased; None when there is none."""
        row = self._database.one(
            "SELECT key, label, snapshot, diff_id, chain_id, made, size FROM cache_records WHERE key = ?",
            (key,),
        )
        if row is None or (row["snapshot"] and self._store.snapshots.find(row["snapshot"]) is None):
            return None
        if self.files_only and row["diff_id"] and not row["snapshot"]:
            return None
        self._used.append(key)
        return Record(*row)

    def latest(self, shape: Shape) -> tuple[Record, dict[str, Any]] | None:
        """The newest record of a shape and its fields; its snapshot leased."""
        row = self._database.one(
            "SELECT key, fields FROM cache_records WHERE shape = ? ORDER BY made DESC LIMIT 1",
            (shape.digest,),
        )
        record = None if row is None else self.find(row["key"])
        return None if row is None or record is None else (record, fields_of(row))

    def earlier(self, shape: Shape, place: str) -> Before | None:
        """The newest record of a shape that has files, of this place before others; its snapshot leased."""
        row = self._database.one(
            """SELECT key, snapshot FROM cache_records WHERE shape = ? AND snapshot != ''
               ORDER BY place = ? DESC, rowid DESC LIMIT 1""",
            (shape.digest, place),
        )
        if row is None or self._store.snapshots.find(row["snapshot"]) is None:
            return None
        copied = self._database.one("SELECT stretches FROM cache_stretches WHERE key = ?", (row["key"],))
        blob = b"" if copied is None else copied["stretches"]
        stretches = frozenset(blob[at : at + 32] for at in range(0, len(blob), 32))
        pieces = pieces_of(self._database, row["key"])
        return Before(self._store.snapshots.path(row["snapshot"]), stretches, pieces)

    def fields(self, key: str) -> dict[str, Any]:
        """The named fields of a record, and its notes; empty when there is none."""
        row = self._database.one("SELECT fields FROM cache_records WHERE key = ?", (key,))
        return {} if row is None else fields_of(row)

    def put(
        self,
        record: Record,
        shape: Shape,
        content: Content,
        *,
        place: str = "",
        root: str = "",
        notes: Mapping[str, Any] = {},
    ) -> None:
        """Remember a step. `notes` are fields that are no part of the key."""
        named = {**shape.fields, "root": root, "content": content.digest, **notes}
        fields = json.dumps(named, ensure_ascii=False)
        now = time.time_ns()
        row = (
            record.key, shape.digest, shape.kind, storable(record.label), place, record.snapshot, root,
            record.diff_id, record.chain_id, record.made, now, 0, record.size, storable(fields),
        )  # fmt: skip
        self._made.append(record.key)
        with self._database.transaction() as connection:
            # A record that lost its snapshot, or was ignored by --no-cache, is replaced.
            connection.execute(
                "INSERT OR REPLACE INTO cache_records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            )
            if content.pieces:
                put_pieces(connection, record.key, content.pieces)
            if content.copied:
                copied = (record.key, b"".join(content.copied))
                connection.execute("INSERT OR REPLACE INTO cache_stretches VALUES (?, ?)", copied)

    def moved(self, key: str, snapshot: str, chain_id: Digest) -> None:
        """A record's layer now stands on another root."""
        with self._database.transaction() as connection:
            sql = "UPDATE cache_records SET snapshot = ?, chain_id = ? WHERE key = ?"
            connection.execute(sql, (snapshot, chain_id, key))

    def note_use(self) -> None:
        """Count the records this build used. All of them, and those it made, get the same time (`pipe why` needs that)."""
        if not self._used and not self._made:
            return
        keys, self._used = self._used, []
        made, self._made = self._made, []
        now = time.time_ns()
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE cache_records SET used = ?, uses = uses + 1 WHERE key = ?",
                [(now, key) for key in keys],
            )
            connection.executemany(
                "UPDATE cache_records SET used = ? WHERE key = ?", [(now, key) for key in made]
            )

    # --- content of finished roots -------------------------------------------------------------------------------

    def content_digest(self, chain: str, selector: str) -> str | None:
        row = self._database.one(
            "SELECT digest FROM content_digests WHERE chain_id = ? AND selector = ?", (chain, selector)
        )
        digest = None if row is None else str(row["digest"])
        if digest is None and self.imports is not None:
            digest = self.imports.content_digest(chain, selector)
        if digest is not None:
            self.contents[(chain, selector)] = digest
        return digest

    def remember_content(self, chain: str, selector: str, digest: str) -> None:
        self.contents[(chain, selector)] = digest
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO content_digests VALUES (?, ?, ?)", (chain, selector, digest)
            )

    def keep_contents(self) -> None:
        """Remember the content digests this build used, which may have been told from elsewhere."""
        rows = [(*place, digest) for place, digest in self.contents.items()]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO content_digests VALUES (?, ?, ?)", rows)


def fields_of(row: Any) -> dict[str, Any]:
    """The named fields of a record's row."""
    fields: dict[str, Any] = json.loads(row["fields"])
    return fields


def storable(text: str) -> str:
    """SQLite takes no lone surrogates (names that are not UTF-8)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
