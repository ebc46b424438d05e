"""Volumes: make, find, remove, prune, and fill a new one from an image.

A volume is its directory first and its row second, so a kill in between leaves a directory nobody knows, which the
next creation of that name takes over. What a container has mounted cannot be removed; who uses what is in
`volume_uses`, written by `runtime.containers`.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping

from runtime.errors import Conflict, InvalidInput, NotFound, did_you_mean
from runtime.events import Changed, Emit, ignore
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.store import Store
from runtime.volumes.values import Volume

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OPTIONS = ("type", "device", "o")


class Volumes:
    """The volumes of one store."""

    def __init__(self, store: Store, emit: Emit = ignore) -> None:
        self._db = store.db
        self._directory = os.path.join(store.root, "volumes")
        self._emit = emit

    def create(
        self,
        name: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """A volume of this name, made if there is none; "" makes an anonymous one."""
        anonymous = not name
        name = name or os.urandom(32).hex()
        _check(name, options or {})
        if (found := self.find(name)) is not None:
            if options and dict(options) != dict(found.options):
                raise Conflict(f"volume {name} exists with other options")
            return found
        self._make_directory(name)
        row = (name, anonymous, _dump(labels), _dump(options), time.time())
        with self._db.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?, ?)", row)
        self._emit(Changed(kind="volume", id=name, action="create", attributes={"driver": "local"}))
        return self.get(name)

    def _make_directory(self, name: str) -> None:
        with faults_of_the_host(f"cannot make volume {name}"):
            os.makedirs(os.path.join(self._directory, name), mode=0o701, exist_ok=True)
            os.makedirs(self.path(name), mode=0o755, exist_ok=True)

    def path(self, name: str) -> str:
        """Where the files of a volume are."""
        return os.path.join(self._directory, name, "_data")

    def find(self, name: str) -> Volume | None:
        row = self._db.one("SELECT * FROM volumes WHERE name = ?", (name,))
        return None if row is None else self._volume(row)

    def get(self, name: str) -> Volume:
        if (found := self.find(name)) is None:
            names = [volume.name for volume in self.list() if not volume.anonymous]
            raise NotFound(
                f"no such volume: {name}", hint=did_you_mean(name, names) or "`pipe volume ls` lists them"
            )
        return found

    def list(self) -> tuple[Volume, ...]:
        """All volumes by name."""
        return tuple(self._volume(row) for row in self._db.read("SELECT * FROM volumes ORDER BY name"))

    def _volume(self, row: sqlite3.Row) -> Volume:
        return Volume(
            name=row["name"],
            path=self.path(row["name"]),
            anonymous=bool(row["anonymous"]),
            labels=json.loads(row["labels"]),
            options=json.loads(row["options"]),
            created=row["created"],
        )

    # --- who uses what -----------------------------------------------------------------------------------------------

    def use(self, container: str, names: Iterable[str]) -> None:
        """Record that a container has volumes mounted."""
        rows = [(name, container) for name in names]
        if rows:
            with self._db.transaction() as connection:
                connection.executemany("INSERT OR IGNORE INTO volume_uses VALUES (?, ?)", rows)

    def users(self, name: str) -> tuple[str, ...]:
        """Ids of the containers that have it mounted."""
        rows = self._db.read("SELECT container FROM volume_uses WHERE volume = ?", (name,))
        return tuple(row["container"] for row in rows)

    def leave(self, container: str, *, remove_anonymous: bool = False) -> None:
        """A container is no more; with `remove_anonymous` its anonymous volumes go too unless others use them."""
        rows = self._db.read("SELECT volume FROM volume_uses WHERE container = ?", (container,))
        if not rows:
            return
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM volume_uses WHERE container = ?", (container,))
        if remove_anonymous:
            for row in rows:
                volume = self.find(row["volume"])
                if volume is not None and volume.anonymous and not self.users(volume.name):
                    self.remove(volume.name)

    # --- removing ----------------------------------------------------------------------------------------------------

    def remove(self, name: str, *, force: bool = False) -> int:
        """Remove a volume with its files; bytes freed. `force` makes a missing one no error."""
        if self.find(name) is None:
            if force:
                return 0
            self.get(name)
        with self._db.transaction() as connection:
            users = [
                row[0]
                for row in connection.execute("SELECT container FROM volume_uses WHERE volume = ?", (name,))
            ]
            if users:
                short = ", ".join(user[:12] for user in users)
                raise Conflict(f"volume {name} is in use by {short}", hint="remove the containers first")
            connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
        with faults_of_the_host(f"cannot remove volume {name}"):
            freed = remove_tree(os.path.join(self._directory, name))
        self._emit(Changed(kind="volume", id=name, action="destroy", attributes={"driver": "local"}))
        return freed

    def prune(
        self, *, everything: bool = False, labels: Mapping[str, str] | None = None
    ) -> tuple[tuple[str, ...], int]:
        """Remove unused anonymous volumes, with `everything` named ones too; (names, bytes freed)."""
        removed: tuple[str, ...] = ()
        freed = 0
        for volume in self.list():
            if not (everything or volume.anonymous) or self.users(volume.name):
                continue
            if any(volume.labels.get(key) != value for key, value in (labels or {}).items()):
                continue
            freed += self.remove(volume.name)
            removed += (volume.name,)
        return removed, freed

    # --- filling -----------------------------------------------------------------------------------------------------

    def copy_up(self, name: str, source: int) -> bool:
        """Fill a new volume with what the directory behind descriptor `source` holds; False when it is not empty."""
        from runtime.volumes.copy_up import copy_up

        volume = self.get(name)
        if volume.elsewhere:
            return False
        with faults_of_the_host(f"cannot fill volume {name}"):
            return copy_up(source, volume.path)


def _check(name: str, options: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidInput(
            f"invalid volume name {name!r}",
            hint="use letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
        )
    for key in options:
        if key not in _OPTIONS:
            raise InvalidInput(
                f"volume {name}: unknown option {key!r}",
                hint=did_you_mean(key, _OPTIONS) or "type, device, o",
            )
    if options and not options.get("type"):
        raise InvalidInput(f"volume {name}: option `type` is missing", hint="nfs, tmpfs, or none with o=bind")
    if options.get("type") not in (None, "tmpfs") and not options.get("device"):
        raise InvalidInput(f"volume {name}: option `device` is missing")


def _dump(values: Mapping[str, str] | None) -> str:
    return json.dumps(dict(values or {}), sort_keys=True)
