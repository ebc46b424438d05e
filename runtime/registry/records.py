"""The registry's own tables. SQL lives here and nowhere else in this package; what rows mean is `repositories`' business."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.values import field, frozen
from runtime.store.database import Database

# A blob that was asked for is noted anew after this many seconds, long before its day is over.
_NOTED_FOR = 3600.0


@frozen
class ManifestRow:
    """A manifest or index that was pushed to a repository."""

    digest: Digest
    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(
            self.media_type, self.digest, self.size, self.annotations, artifact_type=self.artifact_type
        )


@frozen
class TagRow:
    """What a tag was pushed as; `image` and its tag `reference` are "" for what is no image."""

    tag: str
    digest: Digest
    image: str = ""
    reference: str = ""


class Records:
    """Reads and writes rows. Safe to use from threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── manifests and tags ─────────────────────────────────────────────────────────────────────────────────────────

    def manifest(self, repository: str, digest: Digest) -> ManifestRow | None:
        row = self._database.read(
            "SELECT * FROM registry_manifests WHERE repository = ? AND digest = ?", (repository, digest)
        )
        return _manifest(row[0]) if row else None

    def referrers(self, repository: str, subject: Digest) -> list[ManifestRow]:
        rows = self._database.read(
            "SELECT * FROM registry_manifests WHERE repository = ? AND subject = ? ORDER BY digest",
            (repository, subject),
        )
        return [_manifest(row) for row in rows]

    def add_manifest(self, repository: str, row: ManifestRow, parts: Iterable[Digest] = ()) -> None:
        """Keep a manifest; its `parts` need no keeping of their own any more."""
        annotations = json.dumps(dict(row.annotations))
        values = (row.subject, row.artifact_type, annotations, time.time())
        with self._database.transaction(durable=True) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO registry_manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (repository, row.digest, row.media_type, row.size, *values),
            )
            connection.executemany(
                "DELETE FROM registry_blobs WHERE repository = ? AND digest = ? AND deleted = 0",
                [(repository, part) for part in parts],
            )

    def tag(self, repository: str, tag: str) -> TagRow | None:
        rows = self._database.read(
            "SELECT * FROM registry_tags WHERE repository = ? AND tag = ?", (repository, tag)
        )
        return _tag(rows[0]) if rows else None

    def tags(self, repository: str) -> list[TagRow]:
        rows = self._database.read("SELECT * FROM registry_tags WHERE repository = ?", (repository,))
        return [_tag(row) for row in rows]

    def set_tag(self, repository: str, row: TagRow) -> None:
        with self._database.transaction(durable=True) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO registry_tags VALUES (?, ?, ?, ?, ?, ?)",
                (repository, row.tag, row.digest, row.image, row.reference, time.time()),
            )

    def remove_tag(self, repository: str, tag: str) -> bool:
        with self._database.transaction(durable=True) as connection:
            done = connection.execute(
                "DELETE FROM registry_tags WHERE repository = ? AND tag = ?", (repository, tag)
            )
            return done.rowcount > 0

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """With all its tags."""
        args = (repository, digest)
        with self._database.transaction(durable=True) as connection:
            connection.execute("DELETE FROM registry_tags WHERE repository = ? AND digest = ?", args)
            done = connection.execute(
                "DELETE FROM registry_manifests WHERE repository = ? AND digest = ?", args
            )
            return done.rowcount > 0

    def repositories(self) -> set[str]:
        rows = self._database.read("SELECT DISTINCT repository FROM registry_manifests")
        return {row["repository"] for row in rows}

    def has_repository(self, repository: str) -> bool:
        sql = "SELECT 1 FROM registry_manifests WHERE repository = ? LIMIT 1"
        return bool(self._database.read(sql, (repository,)))

    def image_tags(self, name: str = "") -> list[tuple[str, Digest]]:
        """Tags of the store's images: canonical reference and image id; of one `domain/path`, or all."""
        # ":" is the character before the tag, ";" the one after it.
        where, args = ("WHERE name > ? AND name < ?", (f"{name}:", f"{name};")) if name else ("", ())
        rows = self._database.read(f"SELECT name, image FROM tags {where} ORDER BY name", args)
        return [(row["name"], Digest(row["image"])) for row in rows]

    # ── blobs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def is_deleted(self, repository: str, digest: Digest) -> bool:
        sql = "SELECT deleted FROM registry_blobs WHERE repository = ? AND digest = ?"
        rows = self._database.read(sql, (repository, digest))
        return bool(rows and rows[0]["deleted"])

    def note_blob(self, repository: str, digest: Digest) -> None:
        """Keep a blob a day without a manifest: one may be on its way."""
        sql = "SELECT 1 FROM registry_blobs WHERE repository = ? AND digest = ? AND deleted = 0 AND seen > ?"
        now = time.time()
        if self._database.read(sql, (repository, digest, now - _NOTED_FOR)):
            return
        self._write_blob(repository, digest, deleted=0)

    def delete_blob(self, repository: str, digest: Digest) -> None:
        self._write_blob(repository, digest, deleted=1)

    def undelete_blobs(self, repository: str, digests: Iterable[Digest]) -> None:
        rows = self._database.read(
            "SELECT digest FROM registry_blobs WHERE repository = ? AND deleted = 1", (repository,)
        )
        for digest in {row["digest"] for row in rows}.intersection(digests):
            self._write_blob(repository, Digest(digest), deleted=0)

    def _write_blob(self, repository: str, digest: Digest, *, deleted: int) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO registry_blobs VALUES (?, ?, ?, ?)",
                (repository, digest, deleted, time.time()),
            )

    def sweep(self, has: Callable[[Digest], bool]) -> None:
        """Drop rows that stand for nothing any more: of manifests that were collected, of old blobs."""
        rows = self._database.read("SELECT repository, digest FROM registry_manifests")
        gone = [(row["repository"], row["digest"]) for row in rows if not has(Digest(row["digest"]))]
        with self._database.transaction() as connection:
            for table in ("registry_manifests", "registry_tags"):
                connection.executemany(f"DELETE FROM {table} WHERE repository = ? AND digest = ?", gone)
            limit = time.time() - 2 * 86400
            connection.execute("DELETE FROM registry_blobs WHERE deleted = 0 AND seen < ?", (limit,))

    # ── uploads ────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_upload(self, upload: str, repository: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO registry_uploads VALUES (?, ?, ?)", (upload, repository, time.time())
            )

    def has_upload(self, upload: str, repository: str) -> bool:
        sql = "SELECT 1 FROM registry_uploads WHERE id = ? AND repository = ?"
        return bool(self._database.read(sql, (upload, repository)))

    def remove_upload(self, upload: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM registry_uploads WHERE id = ?", (upload,))

    def uploads_before(self, moment: float) -> list[str]:
        rows = self._database.read("SELECT id FROM registry_uploads WHERE updated < ?", (moment,))
        return [row["id"] for row in rows]


def _tag(row: sqlite3.Row) -> TagRow:
    return TagRow(row["tag"], Digest(row["digest"]), row["image"], row["reference"])


def _manifest(row: sqlite3.Row) -> ManifestRow:
    return ManifestRow(
        Digest(row["digest"]),
        row["media_type"],
        int(row["size"]),
        row["subject"],
        row["artifact_type"],
        json.loads(row["annotations"]),
    )
