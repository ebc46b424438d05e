"""The rows of the table `containers`. How a container is at the moment comes from its directory, not from here."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence

from registry_client.values import as_dict
from runtime.containers.container import Container, PlacedMount
from runtime.containers.names import random_name
from runtime.containers.spec import ContainerSpec
from runtime.containers.spec_json import dump_image_config, dump_spec, load_image_config, load_spec
from runtime.containers.state import read_state
from runtime.errors import Conflict, InvalidInput, NotFound, did_you_mean
from runtime.store.store import Store


class ContainerRecords:
    def __init__(self, store: Store) -> None:
        self.db = store.db
        self.directory = os.path.join(store.root, "containers")

    def path(self, identifier: str) -> str:
        return os.path.join(self.directory, identifier)

    def add(self, container: Container, creator: str) -> Container:
        """Insert the row under its name, or under a random one; Conflict when the name is taken."""
        with self.db.transaction() as connection:
            name = container.name or self._free_name(connection)
            row = (
                container.id,
                name,
                container.image,
                container.image_name,
                container.snapshot,
                creator,
                container.created,
                dump_spec(container.spec),
                dump_image_config(container.image_config),
                "[]",
            )
            try:
                connection.execute(f"INSERT INTO containers VALUES ({', '.join('?' * len(row))})", row)
            except sqlite3.IntegrityError as error:
                taken = connection.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
                if taken is None:
                    raise
                raise Conflict(
                    f"container name {name!r} is in use by {taken['id'][:12]}",
                    hint="remove or rename that one, or choose another name",
                ) from error
        return self.get(container.id)

    def _free_name(self, connection: sqlite3.Connection) -> str:
        entropy = os.urandom(8)
        attempt = 0
        while True:
            name = random_name(entropy, attempt)
            if connection.execute("SELECT 1 FROM containers WHERE name = ?", (name,)).fetchone() is None:
                return name
            attempt += 1

    def complete(self, identifier: str, mounts: Sequence[PlacedMount], creator: str) -> None:
        """Its directory is whole now."""
        text = json.dumps([as_dict(mount) for mount in mounts], separators=(",", ":"))
        with self.db.transaction() as connection:
            change = "UPDATE containers SET mounts = ?, creator = ? WHERE id = ?"
            connection.execute(change, (text, creator, identifier))

    def started(self, identifier: str) -> None:
        """It is no longer its creator's alone."""
        with self.db.transaction() as connection:
            connection.execute("UPDATE containers SET creator = '' WHERE id = ?", (identifier,))

    def rename(self, identifier: str, name: str) -> None:
        with self.db.transaction() as connection:
            try:
                connection.execute("UPDATE containers SET name = ? WHERE id = ?", (name, identifier))
            except sqlite3.IntegrityError as error:
                raise Conflict(f"container name {name!r} is in use") from error

    def respec(self, identifier: str, spec: ContainerSpec) -> None:
        """Another spec for the next start."""
        with self.db.transaction() as connection:
            connection.execute("UPDATE containers SET spec = ? WHERE id = ?", (dump_spec(spec), identifier))

    def find(self, name: str) -> Container | None:
        """By id, name, or a prefix of the id that only one has."""
        plain = name.removeprefix("/")
        rows = self.db.read("SELECT * FROM containers WHERE id = ? OR name = ?", (plain, plain))
        if not rows and plain and set(plain) <= set("0123456789abcdef"):
            rows = self.db.read("SELECT * FROM containers WHERE id LIKE ? || '%' LIMIT 2", (plain,))
            if len(rows) > 1:
                raise InvalidInput(f"container id {name!r} is ambiguous", hint="give more of its digits")
        return self._container(rows[0]) if rows else None

    def get(self, name: str) -> Container:
        if (found := self.find(name)) is None:
            names = [row["name"] for row in self.db.read("SELECT name FROM containers")]
            hint = did_you_mean(name, names) or "`pipe ps -a` lists them"
            raise NotFound(f"no such container: {name}", hint=hint)
        return found

    def all(self) -> list[Container]:
        """Newest first."""
        rows = self.db.read("SELECT * FROM containers ORDER BY created DESC, id")
        return [self._container(row) for row in rows]

    def unfinished(self) -> list[tuple[str, str]]:
        """(id, creator) of those that are still their creator's."""
        rows = self.db.read("SELECT id, creator FROM containers WHERE creator != ''")
        return [(row["id"], row["creator"]) for row in rows]

    def ids(self) -> set[str]:
        return {row["id"] for row in self.db.read("SELECT id FROM containers")}

    def _container(self, row: sqlite3.Row) -> Container:
        directory = self.path(row["id"])
        return Container(
            id=row["id"],
            name=row["name"],
            image=row["image"],
            image_name=row["image_name"],
            snapshot=row["snapshot"],
            created=row["created"],
            spec=load_spec(row["spec"]),
            image_config=load_image_config(row["image_config"]),
            mounts=tuple(_mount(record) for record in json.loads(row["mounts"])),
            state=read_state(directory),
            directory=directory,
        )


def _mount(record: dict[str, object]) -> PlacedMount:
    return PlacedMount(**{**record, "options": tuple(record["options"])})  # type: ignore[arg-type]
