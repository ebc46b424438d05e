"""The store's SQLite database: connections, transactions, migrations. What the tables mean is the rooms' business.

Any number of processes and threads use it at once. A thread reads outside of transactions, or holds the one write
transaction; inside it, `read` sees what it wrote. Rows of a commit survive kill -9 always and a power loss after
`transaction(durable=True)`; without it a power loss may undo the last commits, as a whole and in order.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from runtime.errors import HostFault, Unsupported

_MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")
_BUSY_SECONDS = 60.0


_HINTS = {
    "full": "free some space, for example with `pipe system prune`",
    "disk I/O": "the disk has a fault, or a file system no database can be on: put the store on another one with PIPE_ROOT",
}


class Database:
    """`pipe.db`. Safe to use from many threads; close it when done."""

    def __init__(self, path: str, migrations: str = _MIGRATIONS) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic
        self._pid = os.getpid()
        self._local = threading.local()
        self._migrate(migrations)

    def read(self, sql: str, args: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._faults(), self._connection() as connection:
            rows: list[sqlite3.Row] = _retry(lambda: connection.execute(sql, args).fetchall())
            return rows

    def one(self, sql: str, args: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        rows = self.read(sql, args)
        return rows[0] if rows else None

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end of the block, or undo all if it raises. Inner ones join the outer."""
        if getattr(self._local, "connection", None) is not None:
            yield self._local.connection
            return
        with self._faults(), self._connection() as connection:
            if durable:
                connection.execute("PRAGMA synchronous=FULL")
            _retry(lambda: connection.execute("BEGIN IMMEDIATE"))
            self._local.connection = connection
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._local.connection = None
                if durable:
                    connection.execute("PRAGMA synchronous=NORMAL")

    def close(self) -> None:
        """Close the connections no thread is using."""
        while self._idle:
            connection = self._idle.pop()
            if self._pid == os.getpid():
                connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        held = getattr(self._local, "connection", None)
        if held is not None:
            yield held
            return
        if self._pid != os.getpid():
            # A connection must not be carried across a fork (sqlite.org/howtocorrupt, 2.6); the parent owns those.
            self._pid, self._idle = os.getpid(), []
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such" in str(error) or "syntax" in str(error):
                raise  # a bug of ours
            hint = next((hint for word, hint in _HINTS.items() if word in str(error)), "")
            raise HostFault(f"database {self.path}: {error}", hint=hint) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
                raise
            hint = "the store is damaged; move it away and build or pull again"
            raise HostFault(f"database {self.path}: {error}", hint=hint) from error

    # --- migrations ---------------------------------------------------------------------------------------------

    def _migrate(self, directory: str) -> None:
        ours = sorted(name[:-4] for name in os.listdir(directory) if name.endswith(".sql"))
        if self._missing(ours):
            with _migration_lock(self.path + ".migrate"), self._faults():
                for name in self._missing(ours):
                    with open(os.path.join(directory, f"{name}.sql"), encoding="utf-8") as file:
                        self._apply(name, file.read())

    def _missing(self, ours: list[str]) -> list[str]:
        """Migrations still to apply; refuses a database that has some we do not know."""
        try:
            done = {row["name"] for row in self.read("SELECT name FROM migrations")}
        except sqlite3.OperationalError:
            return ours  # no such table: a new database
        if unknown := sorted(done.difference(ours)):
            raise Unsupported(
                f"the store {os.path.dirname(self.path)} was made by a newer pipe (it has migration {unknown[0]})",
                hint="update pipe, or use another store with PIPE_ROOT",
            )
        return [name for name in ours if name not in done]

    def _apply(self, name: str, script: str) -> None:
        with self._connection() as connection:
            # Persistent, and cannot be changed inside a transaction.
            _retry(lambda: connection.execute("PRAGMA journal_mode=WAL"))
            record = (
                "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied REAL NOT NULL) STRICT;"
            )
            row = f"INSERT INTO migrations VALUES ('{name}', {time.time()});"
            try:
                connection.executescript(f"BEGIN IMMEDIATE;\n{record}\n{script}\n{row}\nCOMMIT;")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _retry(action: Any) -> Any:
    """Run `action` until the database is not busy: SQLite's own timeout does not cover every case in WAL mode."""
    deadline = time.monotonic() + _BUSY_SECONDS
    pause = 0.001
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if ("locked" not in str(error) and "busy" not in str(error)) or time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(pause * 2, 0.1)


@contextmanager
def _migration_lock(path: str) -> Iterator[None]:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
