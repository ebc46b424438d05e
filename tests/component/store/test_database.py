"""Migrations and transactions, with several processes at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.errors import HostFault, Unsupported
from runtime.store.database import Database

FIRST = "CREATE TABLE numbers (n INTEGER PRIMARY KEY, who TEXT) STRICT;"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    directory = tmp_path / "migrations"
    directory.mkdir()
    (directory / "0001_first.sql").write_text(FIRST)
    return directory


def opened(tmp_path: Path, migrations: Path) -> Database:
    return Database(str(tmp_path / "pipe.db"), str(migrations))


def test_a_migration_is_applied_once_and_a_new_one_on_the_next_opening(
    tmp_path: Path, migrations: Path
) -> None:
    opened(tmp_path, migrations).close()
    (migrations / "0002_second.sql").write_text("ALTER TABLE numbers ADD COLUMN more TEXT;")
    database = opened(tmp_path, migrations)
    assert [row["name"] for row in database.read("SELECT name FROM migrations")] == [
        "0001_first",
        "0002_second",
    ]
    database.close()


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path, migrations: Path) -> None:
    (migrations / "0002_bad.sql").write_text("CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError):
        opened(tmp_path, migrations)
    (migrations / "0002_bad.sql").write_text("CREATE TABLE half (y);")
    database = opened(tmp_path, migrations)
    assert database.read("SELECT y FROM half") == []
    database.close()


def test_a_store_of_a_newer_pipe_is_refused_with_a_way_out(tmp_path: Path, migrations: Path) -> None:
    (migrations / "0002_future.sql").write_text("CREATE TABLE future (x);")
    opened(tmp_path, migrations).close()
    (migrations / "0002_future.sql").unlink()
    with pytest.raises(Unsupported, match="made by a newer pipe") as caught:
        opened(tmp_path, migrations)
    assert "update pipe" in caught.value.hint


def test_a_transaction_is_undone_when_its_block_fails(tmp_path: Path, migrations: Path) -> None:
    database = opened(tmp_path, migrations)
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES (1, 'x')")
        assert len(database.read("SELECT * FROM numbers")) == 1  # inside, one sees what one wrote
        raise ZeroDivisionError
    assert database.read("SELECT * FROM numbers") == []
    database.close()


def test_an_inner_transaction_is_part_of_the_outer_one(tmp_path: Path, migrations: Path) -> None:
    database = opened(tmp_path, migrations)
    with pytest.raises(ZeroDivisionError), database.transaction():
        with database.transaction() as connection:
            connection.execute("INSERT INTO numbers VALUES (1, 'x')")
        raise ZeroDivisionError
    assert database.read("SELECT * FROM numbers") == []
    database.close()


def test_a_broken_rule_of_a_table_reaches_the_caller_as_it_is(tmp_path: Path, migrations: Path) -> None:
    database = opened(tmp_path, migrations)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES ('no number', 'x')")
    database.close()


def test_a_file_that_is_no_database_is_a_fault_of_the_host(tmp_path: Path, migrations: Path) -> None:
    (tmp_path / "pipe.db").write_bytes(b"this is not a database, is it? " * 100)
    with pytest.raises(HostFault, match="not a database"):
        opened(tmp_path, migrations)


def test_threads_count_together(tmp_path: Path, migrations: Path) -> None:
    database = opened(tmp_path, migrations)

    def count() -> None:
        for _ in range(20):
            with database.transaction() as connection:
                highest = connection.execute("SELECT coalesce(max(n), 0) FROM numbers").fetchone()[0]
                connection.execute("INSERT INTO numbers VALUES (?, 'thread')", (highest + 1,))

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.read("SELECT count(*), max(n) FROM numbers")[0][:] == (120, 120)
    database.close()


COUNT = """
import sys
from runtime.store.database import Database
database = Database(sys.argv[1], sys.argv[2])
for _ in range(25):
    with database.transaction() as connection:
        highest = connection.execute("SELECT coalesce(max(n), 0) FROM numbers").fetchone()[0]
        connection.execute("INSERT INTO numbers VALUES (?, 'process')", (highest + 1,))
"""


def test_ten_processes_open_migrate_and_write_at_once(tmp_path: Path, migrations: Path) -> None:
    arguments = [sys.executable, "-c", COUNT, str(tmp_path / "pipe.db"), str(migrations)]
    running = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(10)]
    errors = [process.communicate()[1] for process in running]
    assert [(process.returncode, error) for process, error in zip(running, errors)] == [(0, b"")] * 10
    database = opened(tmp_path, migrations)
    assert database.read("SELECT count(*), max(n) FROM numbers")[0][:] == (250, 250)
    database.close()


def test_the_databases_of_all_rooms_migrate_together(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "pipe.db"))
    tables = {row["name"] for row in database.read("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"snapshots", "chains", "leases", "images", "tags", "layers", "manifests"} <= tables
    assert [row[0] for row in database.read("PRAGMA foreign_key_check")] == []
    database.close()


def test_files_of_migrations_have_each_number_once() -> None:
    import runtime.store

    directory = Path(runtime.store.__file__).with_name("migrations")
    numbers = [name.name[:4] for name in sorted(directory.glob("*.sql"))]
    assert numbers == sorted(set(numbers))
    assert all(number.isdigit() for number in numbers)


def test_a_connection_is_not_carried_into_a_forked_child(tmp_path: Path, migrations: Path) -> None:
    code = """
import os, sys
from runtime.store.database import Database
database = Database(sys.argv[1], sys.argv[2])
with database.transaction() as connection:
    connection.execute("INSERT INTO numbers VALUES (1, 'parent')")
child = os.fork()
if child == 0:
    with database.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES (2, 'child')")
    os._exit(0)
_, status = os.waitpid(child, 0)
with database.transaction() as connection:
    connection.execute("INSERT INTO numbers VALUES (3, 'parent')")
assert status == 0 and len(database.read("SELECT * FROM numbers")) == 3
"""
    arguments = [sys.executable, "-c", code, str(tmp_path / "pipe.db"), str(migrations)]
    subprocess.run(arguments, check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
