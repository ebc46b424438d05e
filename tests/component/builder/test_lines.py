"""The lines `pipe why` compares: each piece is stored once, and goes with the last record that has it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache import Cache, Record
from builder.content import Content
from builder.keys import Shape
from builder.lines import Piece, lines_of, pieces_of
from registry_client.oci.digest import Digest
from runtime.store import Store
from runtime.store.database import Database

SHAPE = Shape.of("copy.v1", {})
MIGRATIONS = Path(__file__).parents[3] / "runtime" / "store" / "migrations"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as store:
        yield store


def piece(name: str) -> Piece:
    return name.encode().ljust(32), f"\0100644\0000:0\0001\0\0{name}".encode()


def put(store: Store, key: str, *pieces: Piece) -> None:
    record = Record(key, "COPY", "", Digest(""), Digest(""), 0, 0)
    Cache(store).put(record, SHAPE, Content("sha256:x", pieces))


def names(store: Store, key: str) -> list[str]:
    return [line.rpartition("\0")[2] for line in lines_of(store.db, key)]


def stored(store: Store) -> int:
    return int(store.db.read("SELECT count(*) AS n FROM cache_lines")[0]["n"])


def forget(store: Store, key: str) -> None:
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM cache_records WHERE key = ?", (key,))


def test_a_piece_two_records_have_is_stored_once(store: Store) -> None:
    put(store, "one", piece("b"), piece("a"))
    held = pieces_of(store.db, "one")
    assert held == {piece("a")[0]: len(piece("a")[1] or b""), piece("b")[0]: len(piece("b")[1] or b"")}
    put(store, "two", (piece("b")[0], None), piece("c"))
    assert names(store, "one") == ["a", "b"]
    assert names(store, "two") == ["b", "c"]
    assert stored(store) == 3


def test_a_piece_goes_with_its_last_record(store: Store) -> None:
    put(store, "one", piece("a"), piece("b"))
    put(store, "two", piece("b"), piece("c"))
    forget(store, "one")
    assert names(store, "two") == ["b", "c"]
    assert stored(store) == 2
    forget(store, "two")
    assert stored(store) == 0


def test_a_record_that_is_replaced_leaves_none_of_its_pieces(store: Store) -> None:
    put(store, "one", piece("a"), piece("b"))
    put(store, "one", piece("b"), piece("c"))
    assert names(store, "one") == ["b", "c"]
    assert stored(store) == 2


def test_a_record_whose_piece_was_collected_meanwhile_has_no_lines(store: Store) -> None:
    """Half of them would make `pipe why` tell of files that came or went."""
    put(store, "one", piece("a"))
    forget(store, "one")
    put(store, "two", (piece("a")[0], None), piece("b"))
    assert lines_of(store.db, "two") == []
    assert Cache(store).find("two") is not None


def test_the_lines_of_an_older_store_are_kept(tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    for path in sorted(MIGRATIONS.glob("*.sql")):
        if path.name < "0012":
            shutil.copy(path, older)
    database = Database(str(tmp_path / "pipe.db"), str(older))
    with database.transaction() as connection:
        for key in ("one", "two"):
            row = (key, "", "copy.v1", "", "", "", "", "", "", 0, 0, 0, 0, "{}")
            connection.execute(f"INSERT INTO cache_records VALUES ({', '.join('?' * 14)})", row)
            connection.execute("INSERT INTO cache_files VALUES (?, ?)", (key, b"x\0b\nx\0" + key.encode()))
    database.close()
    database = Database(str(tmp_path / "pipe.db"), str(MIGRATIONS))
    assert lines_of(database, "one") == ["x\0b", "x\0one"]
    assert lines_of(database, "two") == ["x\0b", "x\0two"]
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.execute("INSERT INTO cache_files (key) VALUES ('nobody')")
    database.close()
