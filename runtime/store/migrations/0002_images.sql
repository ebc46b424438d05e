-- Images by id (the digest of their config), the names they have, and the forms their parts are known in.

CREATE TABLE images (
    id       TEXT PRIMARY KEY,            -- digest of the config
    config   BLOB NOT NULL,               -- its exact bytes
    manifest TEXT,                        -- digest of the manifest it came with or was pushed as
    size     INTEGER NOT NULL DEFAULT 0,  -- bytes of all layers, unpacked as tars where known
    added    REAL NOT NULL,
    boot     TEXT NOT NULL DEFAULT ''     -- as in snapshots
) STRICT;

CREATE TABLE image_layers (
    image    TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id  TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX image_layers_chain ON image_layers (chain_id);

CREATE TABLE tags (
    name    TEXT PRIMARY KEY,             -- canonical: docker.io/library/busybox:latest
    image   TEXT NOT NULL REFERENCES images (id),
    updated REAL NOT NULL
) STRICT;

CREATE INDEX tags_image ON tags (image);

-- Manifests and indexes an image is known by. Their bytes are blobs.
CREATE TABLE manifests (
    digest     TEXT NOT NULL,
    image      TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    repository TEXT NOT NULL DEFAULT '',  -- where it was pulled from or pushed to; '' when nowhere yet
    media_type TEXT NOT NULL,             -- last: SQLite 3.40 finds fault with key columns behind others
    PRIMARY KEY (digest, image, repository)
) STRICT, WITHOUT ROWID;

CREATE INDEX manifests_image ON manifests (image);

-- Stored forms of a layer: what its tar looks like as a blob.
CREATE TABLE layers (
    diff_id     TEXT NOT NULL,
    compression TEXT NOT NULL,            -- '', gzip, zstd
    digest      TEXT NOT NULL,
    size        INTEGER NOT NULL,
    made        INTEGER NOT NULL,         -- 1: made here, and can be made again; 0: came so from elsewhere
    PRIMARY KEY (diff_id, compression, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX layers_digest ON layers (digest);
