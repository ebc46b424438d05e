"""Content digests of files that were read before, so that an unchanged context is not read again (DESIGN, Speed rules).

A file is taken for unchanged when device, inode, size, mtime and ctime are. That is only safe for files that were quiet
for a while when they were read: one that was written within the same clock tick could change again without showing it
(git's "racy" files). Those are read every time until they have aged.
"""

from __future__ import annotations

import marshal
import os
import time
from typing import Protocol

from runtime.store.database import Database

_QUIET_NS = 2_000_000_000
_VERSION = 1


class FileDigests:
    """The memory for one directory; `save` it in the end."""

    def __init__(self, database: Database, directory: str) -> None:
        status = os.stat(directory)
        self._database, self._device = database, status.st_dev
        self._root = f"{status.st_dev}:{status.st_ino}"
        self._entries = self._load()
        self._seen: dict[int, tuple[int, int, int, bytes]] = {}
        self._fresh = 0
        self._latest_ns = time.time_ns() - _QUIET_NS  # taken before anything is read

    def know(self, status: os.stat_result) -> bytes | None:
        """The digest, or None when the file has to be read."""
        entry = self._entries.get(status.st_ino)
        if entry is None or status.st_dev != self._device:
            return None
        size, mtime_ns, ctime_ns, digest = entry
        if (size, mtime_ns, ctime_ns) != (status.st_size, status.st_mtime_ns, status.st_ctime_ns):
            return None
        self._seen[status.st_ino] = entry
        return digest

    def learn(self, status: os.stat_result, digest: bytes) -> None:
        """Remember what was read; `status` is from before the reading."""
        if status.st_dev != self._device or max(status.st_mtime_ns, status.st_ctime_ns) > self._latest_ns:
            return
        self._seen[status.st_ino] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest)
        self._fresh += 1

    def save(self) -> None:
        """Keep what was learned; what was not met this time stays while it is not too much."""
        if not self._fresh:
            return
        merged = self._entries | self._seen
        if len(merged) > 4 * len(self._seen) + 1000:
            merged = self._seen
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?)",
                (self._root, marshal.dumps((_VERSION, merged)), time.time_ns()),
            )
        self._entries, self._fresh = merged, 0

    def _load(self) -> dict[int, tuple[int, int, int, bytes]]:
        row = self._database.one("SELECT entries FROM file_digests WHERE root = ?", (self._root,))
        if row is None:
            return {}
        try:
            version, entries = marshal.loads(row["entries"])
        except (ValueError, EOFError, TypeError):
            return {}  # written by another version of Python: only a cache
        return entries if version == _VERSION and isinstance(entries, dict) else {}


class Memory(Protocol):
    """What `FileDigests` and `NoMemory` offer."""

    def know(self, status: os.stat_result) -> bytes | None: ...

    def learn(self, status: os.stat_result, digest: bytes) -> None: ...

    def save(self) -> None: ...


class NoMemory:
    """Digests of trees that are not worth remembering file by file."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bytes] = {}

    def know(self, status: os.stat_result) -> bytes | None:
        return self._known.get((status.st_dev, status.st_ino))

    def learn(self, status: os.stat_result, digest: bytes) -> None:
        self._known[(status.st_dev, status.st_ino)] = digest

    def save(self) -> None:
        """Nothing is kept."""
