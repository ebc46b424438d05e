"""The lines that say of each file a step took what it was, for `pipe why`: in pieces, each stored once for all records that have it.

A piece is the lines of a stretch of files, with that of their directory, or some of what came one by one (`builder.content`). It goes with its last record (a trigger
of the table sees to that).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.store.database import Database

if TYPE_CHECKING:
    import sqlite3

Piece = tuple[bytes, bytes | None]  # what tells it apart, and its lines; None: they are stored already

_JOINED = "cache_files JOIN cache_pieces ON cache_pieces.files = cache_files.id JOIN cache_lines ON cache_lines.id = piece"


def put_pieces(connection: sqlite3.Connection, key: str, pieces: Sequence[Piece]) -> None:
    """Store them for a record that has none yet. If one that was stored is gone meanwhile, the record gets none at all."""
    new = [(name, lines) for name, lines in pieces if lines is not None]
    connection.executemany("INSERT OR IGNORE INTO cache_lines (digest, lines) VALUES (?, ?)", new)
    row = connection.execute("INSERT INTO cache_files (key) VALUES (?)", (key,)).lastrowid
    names = {name for name, _ in pieces}
    sql = "INSERT INTO cache_pieces SELECT ?, id FROM cache_lines WHERE digest = ?"
    done = connection.executemany(sql, [(row, name) for name in names]).rowcount
    if done != len(names):
        connection.execute("DELETE FROM cache_files WHERE id = ?", (row,))


def pieces_of(database: Database, key: str) -> dict[bytes, int]:
    """The pieces of a record, each with its length in bytes."""
    sql = f"SELECT digest, length(lines) AS size FROM {_JOINED} WHERE key = ?"
    return {bytes(row["digest"]): row["size"] for row in database.read(sql, (key,))}


def lines_of(database: Database, key: str) -> list[str]:
    """The lines of a record, in the order of the files' names; none where none are kept."""
    sql = f"SELECT lines FROM {_JOINED} WHERE key = ?"
    text = [bytes(row["lines"]).decode("utf-8", "replace") for row in database.read(sql, (key,))]
    return sorted(
        (line for piece in text for line in piece.split("\n")),
        key=lambda line: (line.rpartition("\0")[2], line),
    )
