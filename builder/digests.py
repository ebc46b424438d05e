"""Content digests of files that were read before, so that an unchanged context is not read again (DESIGN, Speed rules).

A file is taken for unchanged when device, inode, size, mtime and ctime are. That is only safe for files that were quiet
for a while when they were read: one that was written within the same clock tick could change again without showing it
(git's "racy" files). Those are read every time until they have aged.

It is remembered twice: for each file, and for stretches of files (`operations.walking`), where one comparison answers
for all of them. A stretch is looked up by the hash of its names and statuses; files are only loaded, directory by
directory, where a stretch is not known.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from builder.operations.walking import STATUS
from runtime.store.database import Database

if TYPE_CHECKING:
    import sqlite3

    from builder.operations.walking import Stretch

_QUIET_NS = 2_000_000_000
_STATE = struct.Struct("<Qqq")  # size, mtime, ctime
_FILE = struct.Struct("<Q24s32s")  # inode, state, digest
_PAIR = 64
_MOST_LEARNED = 8 << 20
_MOST_OF_ONE = 64 * 65_536  # bytes of a directory's records; beyond, its stretches are all that is remembered
_MOST_LOADED = 4 << 20  # bytes of records held ready; one directory always is
_KEPT_NS = 60 * 24 * 3600 * 10**9


class Directory(Protocol):
    """What is known of the files of one directory."""

    def know(self, status: os.stat_result) -> bytes | None:
        """The digest, or None when the file has to be read."""
        ...

    def learn(self, status: os.stat_result, digest: bytes) -> None:
        """Remember what was read; `status` is from before the reading."""
        ...


class Memory(Protocol):
    """What `FileDigests` and `NoMemory` offer."""

    def directory(self, inode: int) -> Directory: ...

    def know_stretch(self, fingerprint: bytes) -> bytes | None: ...

    def learn_stretch(
        self, fingerprint: bytes, statuses: Sequence[os.stat_result], digest: bytes
    ) -> bytes | None:
        """Remember the digest, and give it back; None where that is not safe."""
        ...

    def fingerprint(self, stretch: Stretch, flavour: str) -> bytes:
        """What names and statuses hash to, for a way of describing them; b"" where stretches are not remembered."""
        ...

    def save(self) -> None: ...


class _Files:
    """The files of one directory: those of the store, loaded when asked for, and those that were learned."""

    __slots__ = ("_inode", "_owner", "new", "old")

    def __init__(self, owner: FileDigests, inode: int) -> None:
        self._owner, self._inode = owner, inode
        self.old: tuple[bytes, dict[int, int]] | None = None  # the records, and where each begins
        self.new = bytearray()

    def know(self, status: os.stat_result) -> bytes | None:
        records, places = self.old or self._load()
        at = places.get(status.st_ino)
        if at is None or status.st_dev != self._owner.device:
            return None
        state = _STATE.pack(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return records[at + 32 : at + 64] if records.startswith(state, at + 8) else None

    def _load(self) -> tuple[bytes, dict[int, int]]:
        records = self._owner.load(self._inode)
        inodes = (inode for inode, *_ in _FILE.iter_unpack(records))
        self.old = loaded = records, {inode: at * _FILE.size for at, inode in enumerate(inodes)}
        self._owner.make_room(self, len(records))
        return loaded

    def learn(self, status: os.stat_result, digest: bytes) -> None:
        if len(self.new) >= _MOST_OF_ONE:
            return
        if status.st_dev == self._owner.device and self._owner.was_quiet(status):
            state = _STATE.pack(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            self.new += _FILE.pack(status.st_ino, state, digest)
            self._owner.learned += _FILE.size

    def packed(self) -> bytes:
        """The row to store. What was not met this time stays while it is not too much."""
        old, size = self._owner.load(self._inode), _FILE.size
        new = {inode for inode, *_ in _FILE.iter_unpack(self.new)}
        if len(old) // size > 4 * max(self._owner.seen.get(self._inode, 0), len(new)) + 1000:
            old = b""
        kept = (old[at : at + size] for at in range(0, len(old), size))
        left = b"".join(each for each in kept if int.from_bytes(each[:8], "little") not in new)
        return (bytes(self.new) + left)[:_MOST_OF_ONE]


class FileDigests:
    """The memory for one context; `save` it in the end. For several threads."""

    def __init__(self, database: Database, directory: str) -> None:
        status = os.stat(directory)
        self._database, self.device = database, status.st_dev
        self._name = f"{status.st_dev}:{status.st_ino}"
        self._latest_ns = time.time_ns() - _QUIET_NS  # taken before anything is read
        row = database.one("SELECT id, stretches FROM digest_roots WHERE root = ?", (self._name,))
        self._root = None if row is None else row["id"]
        self._stretches = {} if row is None else dict(_pairs(row["stretches"]))
        self._met: dict[bytes, bytes] = {}
        self.seen: dict[
            int, int
        ] = {}  # how many files of a directory, which may be met in stretches that are known
        self._files: dict[int, _Files] = {}
        self.learned = 0  # bytes that are to be saved
        self._loaded: list[tuple[_Files, int]] = []
        self._lock = threading.Lock()
        self._fresh = False

    def directory(self, inode: int) -> Directory:
        found = self._files.get(inode)
        if found is None:
            if self.learned > _MOST_LEARNED:
                self.save()
            found = self._files.setdefault(inode, _Files(self, inode))
        return found

    def was_quiet(self, status: os.stat_result) -> bool:
        return max(status.st_mtime_ns, status.st_ctime_ns) <= self._latest_ns

    def fingerprint(self, stretch: Stretch, flavour: str) -> bytes:
        statuses = stretch.packed()
        self.seen[stretch.inode] = self.seen.get(stretch.inode, 0) + len(statuses) // STATUS.size
        names = "\0".join((flavour, stretch.prefix, stretch.text()))
        return hashlib.sha256(statuses + names.encode("utf-8", "surrogateescape")).digest()

    def know_stretch(self, fingerprint: bytes) -> bytes | None:
        digest = self._stretches.get(fingerprint)
        if digest is not None:
            self._met[fingerprint] = digest
        return digest

    def learn_stretch(
        self, fingerprint: bytes, statuses: Sequence[os.stat_result], digest: bytes
    ) -> bytes | None:
        if not all(map(self.was_quiet, statuses)):
            return None
        self._met[fingerprint] = digest
        self._fresh = True
        return digest

    def load(self, inode: int) -> bytes:
        """The records of a directory's files as they are in the store."""
        sql = "SELECT files FROM file_digests WHERE root = ? AND directory = ?"
        row = None if self._root is None else self._database.one(sql, (self._root, _signed(inode)))
        return b"" if row is None else bytes(row["files"])

    def make_room(self, files: _Files, size: int) -> None:
        """Of directories that were done with a while ago only what was learned stays in memory."""
        with self._lock:
            self._loaded.append((files, size))
            while len(self._loaded) > 1 and sum(size for _, size in self._loaded) > _MOST_LOADED:
                self._loaded.pop(0)[0].old = None

    def save(self) -> None:
        """Keep what was learned. Contexts nobody built for a long time are forgotten."""
        learned = [(inode, files) for inode, files in list(self._files.items()) if files.new]
        if not learned and not self._fresh:
            return
        self.learned, self._fresh = 0, False
        pairs = dict(self._met)
        if len(self._stretches) <= 4 * len(pairs) + 1000:
            pairs = self._stretches | pairs
        with self._database.transaction() as connection:
            self._root = self._save_root(connection, b"".join(map(b"".join, pairs.items())))
            connection.executemany(
                "INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?)",
                ((self._root, _signed(inode), files.packed()) for inode, files in learned),
            )
            self._forget_directories(connection, self._root)
        self._stretches = pairs
        for _, files in learned:
            files.new, files.old = bytearray(), None

    def _save_root(self, connection: sqlite3.Connection, pairs: bytes) -> int:
        now = time.time_ns()
        connection.execute("DELETE FROM digest_roots WHERE saved < ?", (now - _KEPT_NS,))
        connection.execute(
            """INSERT INTO digest_roots (root, stretches, saved) VALUES (:root, :pairs, :now)
               ON CONFLICT (root) DO UPDATE SET stretches = :pairs, saved = :now""",
            {"root": self._name, "pairs": pairs, "now": now},
        )
        row = connection.execute("SELECT id FROM digest_roots WHERE root = ?", (self._name,)).fetchone()
        return int(row["id"])

    def _forget_directories(self, connection: sqlite3.Connection, root: int) -> None:
        """Those that were not met, where they are too many: most of them are gone."""
        sql = "SELECT directory FROM file_digests WHERE root = ?"
        rows = connection.execute(sql, (root,)).fetchall()
        if len(rows) <= 4 * len(self.seen) + 1000:
            return
        met = {_signed(inode) for inode in self.seen.keys() | self._files.keys()}
        connection.executemany(
            "DELETE FROM file_digests WHERE root = ? AND directory = ?",
            [(root, row["directory"]) for row in rows if row["directory"] not in met],
        )


def _pairs(blob: bytes) -> Iterator[tuple[bytes, bytes]]:
    for at in range(0, len(blob) - _PAIR + 1, _PAIR):
        yield blob[at : at + _PAIR // 2], blob[at + _PAIR // 2 : at + _PAIR]


def _signed(inode: int) -> int:
    """As SQLite holds it."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


class NoMemory:
    """Digests of trees that are not worth remembering: only a file with several names is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bytes] = {}

    def directory(self, inode: int) -> Directory:
        return self

    def know(self, status: os.stat_result) -> bytes | None:
        return self._known.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None

    def learn(self, status: os.stat_result, digest: bytes) -> None:
        if status.st_nlink > 1:
            self._known[(status.st_dev, status.st_ino)] = digest

    def fingerprint(self, stretch: Stretch, flavour: str) -> bytes:
        return b""

    def know_stretch(self, fingerprint: bytes) -> bytes | None:
        return None

    def learn_stretch(
        self, fingerprint: bytes, statuses: Sequence[os.stat_result], digest: bytes
    ) -> bytes | None:
        return None

    def save(self) -> None:
        """Nothing is kept."""
