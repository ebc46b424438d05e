"""Who is using what, so that the garbage collector keeps its hands off.

A lease is a row owned by a process; it counts while that process lives, so nobody has to clean up after a kill. Find
and lease a thing within one transaction: then it is either leased before the collector looks, or gone before you do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from runtime.store.database import Database
from runtime.store.owners import is_alive, own_token

_COUNT = """INSERT INTO leases (owner, kind, thing, created) VALUES (?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET count = count + 1"""
_KEEP = "INSERT OR IGNORE INTO leases (owner, kind, thing, created) VALUES (?, ?, ?, ?)"


class Leases:
    """The leases of one open store. Kinds are `snapshot`, `blob` and `image`; `build` holds nothing but shows that one runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pid = 0
        self._owner = ""
        self._local = threading.local()

    @property
    def owner(self) -> str:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._owner = f"{own_token()}.{os.urandom(4).hex()}"
        return self._owner

    @contextmanager
    def hold(self, kind: str, things: Iterable[str]) -> Iterator[None]:
        """Keep `things` for the length of the block."""
        wanted = [(self.owner, kind, thing) for thing in things]
        now = time.time()
        with self._database.transaction() as connection:
            connection.executemany(_COUNT, [(*row, now) for row in wanted])
        try:
            yield
        finally:
            with self._database.transaction() as connection:
                match = "WHERE owner = ? AND kind = ? AND thing = ?"
                connection.executemany(f"UPDATE leases SET count = count - 1 {match}", wanted)
                connection.execute("DELETE FROM leases WHERE owner = ? AND count <= 0", (self.owner,))

    def keep(self, kind: str, thing: str) -> None:
        """Keep a thing until the store is closed or this process ends."""
        passing: list[str] | None = getattr(self._local, "passing", None)
        owner = f"{self.owner}.kept" if passing is None else passing[0]
        with self._database.transaction() as connection:
            connection.execute(_KEEP, (owner, kind, thing, time.time()))
        if passing is not None:
            passing.append(thing)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """What this thread keeps within the block is kept for the block only: one request of a long-lived server."""
        passing = [f"{self.owner}.{os.urandom(4).hex()}"]
        outer = getattr(self._local, "passing", None)
        self._local.passing = passing
        try:
            yield
        finally:
            self._local.passing = outer
            if len(passing) > 1:
                with self._database.transaction() as connection:
                    connection.execute("DELETE FROM leases WHERE owner = ?", (passing[0],))

    def release(self) -> None:
        """Give up everything this store object holds."""
        if self._pid == os.getpid():
            with self._database.transaction() as connection:
                mine = (self._owner, f"{self._owner}.kept")
                connection.execute("DELETE FROM leases WHERE owner IN (?, ?)", mine)

    def sweep(self) -> None:
        """Forget the leases of processes that are no more."""
        owners = [row["owner"] for row in self._database.read("SELECT DISTINCT owner FROM leases")]
        if dead := [(owner,) for owner in owners if not is_alive(owner)]:
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM leases WHERE owner = ?", dead)

    def held(self, kind: str) -> set[str]:
        """All things of a kind that some living process holds."""
        rows = self._database.read("SELECT owner, thing FROM leases WHERE kind = ?", (kind,))
        alive = {owner: is_alive(owner) for owner in {row["owner"] for row in rows}}
        return {row["thing"] for row in rows if alive[row["owner"]]}
