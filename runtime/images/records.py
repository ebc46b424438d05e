"""The images' rows: what is known of each, which names it has, in which forms its layers are stored. No files, no network."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from registry_client.oci import media_types
from registry_client.oci.config import parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, chain_ids, digest_of
from runtime.errors import InvalidInput, NotFound
from runtime.images.image import Image, Layer
from runtime.store.database import Database
from runtime.store.owners import boot_id

_WHOLE = "boot IN ('', :boot)"  # as in runtime.store.snapshots
_MEDIA_TYPES = {
    "": media_types.OCI_LAYER,
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}
# Of `image_layers l`: the tar's size if the layer is unpacked, else its blob's.
_LAYER_SIZE = """coalesce(
    (SELECT nullif(s.size, 0) FROM chains c JOIN snapshots s ON s.id = c.snapshot
     WHERE c.chain_id = l.chain_id AND s.diff_id = l.diff_id LIMIT 1),
    (SELECT min(size) FROM layers WHERE diff_id = l.diff_id), 0)"""
_OF_IMAGE = "FROM image_layers l WHERE l.image = ?"


class ImageRecords:
    def __init__(self, database: Database) -> None:
        self._database = database

    # --- writing --------------------------------------------------------------------------------------------------

    def put(self, raw_config: bytes, *, durable: bool = False) -> Digest:
        """Record an image; its id. With `durable` its layers are on the disk already, as blobs."""
        image_id = digest_of(raw_config)
        try:
            diff_ids = parse_config(raw_config).diff_ids
        except ValueError as error:
            raise InvalidInput(f"invalid image config {image_id}: {error}") from error
        chain = chain_ids(diff_ids)
        boot = "" if durable else boot_id()
        with self._database.transaction() as connection:
            connection.execute(
                """INSERT INTO images (id, config, added, boot) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
                   SET boot = CASE WHEN images.boot = '' THEN '' ELSE excluded.boot END""",
                (image_id, raw_config, time.time(), boot),
            )
            rows = [(image_id, n, *pair) for n, pair in enumerate(zip(diff_ids, chain))]
            connection.executemany("INSERT OR IGNORE INTO image_layers VALUES (?, ?, ?, ?)", rows)
        return image_id

    def put_layer(
        self, diff_id: Digest, compression: str, digest: Digest, size: int, *, made: bool = False
    ) -> None:
        """Record that the blob `digest` is this layer's tar, compressed so; and whether we `made` it or it came so."""
        with self._database.transaction() as connection:
            connection.execute(
                """INSERT INTO layers VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET made = min(made, excluded.made)""",
                (diff_id, compression, digest, size, int(made)),
            )

    def put_manifest(self, image_id: Digest, digest: Digest, media_type: str, repository: str = "") -> None:
        """Record that the image is known by a manifest or index, maybe in a repository. Of none that is not here."""
        with self._database.transaction() as connection:
            row = (digest, image_id, repository, media_type)
            sql = "INSERT OR REPLACE INTO manifests SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM images WHERE id = ?2)"
            connection.execute(sql, row)
            if media_type in media_types.MANIFESTS:
                connection.execute("UPDATE images SET manifest = ? WHERE id = ?", (digest, image_id))

    def set_tag(self, reference: str, image_id: Digest) -> Digest | None:
        """Let a canonical reference name the image; what it named before."""
        with self._database.transaction() as connection:
            before = connection.execute("SELECT image FROM tags WHERE name = ?", (reference,)).fetchone()
            row = (reference, image_id, time.time())
            try:
                connection.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise NotFound(f"image {image_id} was removed meanwhile") from error
        return before["image"] if before else None

    def set_variants(self, reference: str, image_ids: Iterable[Digest]) -> None:
        """Let a name that is set stand for these images, one for each platform."""
        rows = [(reference, position, each) for position, each in enumerate(image_ids)]
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM variants WHERE name = ?", (reference,))
            connection.executemany("INSERT INTO variants VALUES (?, ?, ?)", rows)

    def remove_tag(self, reference: str) -> bool:
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM tags WHERE name = ?", (reference,)).rowcount > 0

    def remove(self, image_id: Digest) -> None:
        """Forget an image that has no tags; its blobs and snapshots are the collector's business."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def settled(self, image_ids: Iterable[Digest]) -> None:
        """Record that the images' snapshots are on the disk."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE images SET boot = '' WHERE id = ?", [(each,) for each in image_ids]
            )

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, image_id: str) -> Image | None:
        sql = f"SELECT * FROM images WHERE id = :id AND {_WHOLE}"
        row = self._database.one(sql, {"id": image_id, "boot": boot_id()})
        return None if row is None else self._image(row)

    def all(self) -> list[Image]:
        """All images, newest first."""
        sql = f"SELECT * FROM images WHERE {_WHOLE} ORDER BY added DESC, id"
        return [self._image(row) for row in self._database.read(sql, {"boot": boot_id()})]

    def by_tag(self, reference: str) -> Digest | None:
        row = self._database.one("SELECT image FROM tags WHERE name = ?", (reference,))
        return Digest(row["image"]) if row else None

    def variants(self, reference: str) -> list[Digest]:
        """The images a name stands for, if it stands for several platforms."""
        rows = self._database.read(
            "SELECT image FROM variants WHERE name = ? ORDER BY position", (reference,)
        )
        return [Digest(row["image"]) for row in rows]

    def name_for_platforms(self, image_id: Digest) -> str:
        """The newest name that stands for several platforms and runs this image here; "" when there is none."""
        sql = """SELECT name FROM tags WHERE image = ? AND EXISTS (SELECT 1 FROM variants WHERE variants.name = tags.name)
                 ORDER BY updated DESC LIMIT 1"""
        row = self._database.one(sql, (image_id,))
        return row["name"] if row else ""

    def by_manifest(self, digest: str, repository: str = "") -> list[Digest]:
        """Images known by a manifest or index digest, those of `repository` first."""
        sql = """SELECT image FROM manifests WHERE digest = ?
                 GROUP BY image ORDER BY max(repository = ?) DESC, image"""
        return [Digest(row["image"]) for row in self._database.read(sql, (digest, repository))]

    def by_prefix(self, prefix: str) -> list[Digest]:
        """Ids that begin with these hex digits, at most two of them."""
        low, high = f"sha256:{prefix}", f"sha256:{prefix}g"
        sql = f"SELECT id FROM images WHERE id >= :low AND id < :high AND {_WHOLE} LIMIT 2"
        rows = self._database.read(sql, {"low": low, "high": high, "boot": boot_id()})
        return [Digest(row["id"]) for row in rows]

    def layer_forms(self, diff_id: Digest) -> list[Descriptor]:
        """The blobs that are known to hold this layer, whether or not they are still there."""
        sql = (
            "SELECT compression, digest, size FROM layers WHERE diff_id = ? ORDER BY compression DESC, digest"
        )
        rows = self._database.read(sql, (diff_id,))
        return [Descriptor(_MEDIA_TYPES[row["compression"]], row["digest"], row["size"]) for row in rows]

    def came_as(self, digest: Digest) -> bool:
        """Whether a layer's blob came from elsewhere, where it is known in exactly this form."""
        return self._database.one("SELECT 1 FROM layers WHERE digest = ? AND NOT made", (digest,)) is not None

    def repositories_of(self, blob: Digest) -> list[str]:
        """Where images with a layer that came as this blob came from or went to."""
        sql = """SELECT DISTINCT repository FROM layers JOIN image_layers USING (diff_id) JOIN manifests USING (image)
                 WHERE layers.digest = ? AND repository <> '' ORDER BY repository"""
        return [row["repository"] for row in self._database.read(sql, (blob,))]

    def manifests_of(self, image_id: Digest) -> list[sqlite3.Row]:
        sql = (
            "SELECT digest, media_type, repository FROM manifests WHERE image = ? ORDER BY repository, digest"
        )
        return self._database.read(sql, (image_id,))

    def tags_of(self, image_id: Digest) -> tuple[str, ...]:
        rows = self._database.read("SELECT name FROM tags WHERE image = ? ORDER BY name", (image_id,))
        return tuple(row["name"] for row in rows)

    def _image(self, row: sqlite3.Row) -> Image:
        config = parse_config(row["config"])
        return Image(
            id=row["id"],
            config=config,
            raw_config=row["config"],
            layers=tuple(Layer(each, next(iter(self.layer_forms(each)), None)) for each in config.diff_ids),
            manifest_digest=row["manifest"],
            tags=self.tags_of(row["id"]),
            size=self._size(row["id"]),
            created=config.created,
            repo_digests=_repo_digests(self.manifests_of(row["id"])),
        )

    def layer_sizes(self, image_id: Digest) -> list[int]:
        """Bytes of each layer's tar, bottom first; of its blob where it is not unpacked yet."""
        rows = self._database.read(f"SELECT {_LAYER_SIZE} AS size {_OF_IMAGE} ORDER BY position", (image_id,))
        return [row["size"] for row in rows]

    def _size(self, image_id: Digest) -> int:
        row = self._database.one(f"SELECT sum({_LAYER_SIZE}) AS total {_OF_IMAGE}", (image_id,))
        return (row["total"] if row else 0) or 0

    def last_tagged(self, image_id: Digest) -> str:
        """When the image got its newest name, in RFC 3339; the zero time for an image without one."""
        row = self._database.one("SELECT max(updated) AS at FROM tags WHERE image = ?", (image_id,))
        if row is None or row["at"] is None:
            return "0001-01-01T00:00:00Z"
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["at"]))


def _repo_digests(manifests: list[sqlite3.Row]) -> tuple[str, ...]:
    """`repository@digest` of each place the image is at: of the index where it came from one, else of its manifest."""
    indexed = {each["repository"] for each in manifests if each["media_type"] in media_types.INDEXES}
    return tuple(
        f"{each['repository']}@{each['digest']}"
        for each in manifests
        if each["repository"]
        and (each["media_type"] in media_types.INDEXES or each["repository"] not in indexed)
    )
