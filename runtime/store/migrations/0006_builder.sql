-- One row per step that was done: `key` says the operation and the very root it worked on, `shape` the same without
-- the content of files. `fields` are the named parts of the key as JSON, for `pipe why`.
CREATE TABLE cache_records (
    key TEXT PRIMARY KEY,
    shape TEXT NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    place TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    parent TEXT NOT NULL,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    made INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    fields TEXT NOT NULL
) STRICT;
CREATE INDEX cache_records_shape ON cache_records (shape);
CREATE INDEX cache_records_place ON cache_records (place, made);
CREATE INDEX cache_records_snapshot ON cache_records (snapshot);
CREATE INDEX cache_records_chain ON cache_records (chain_id);

-- The files a COPY took, as lines `digest name`, apart from the record because they are many.
CREATE TABLE cache_files (
    key TEXT PRIMARY KEY REFERENCES cache_records (key) ON DELETE CASCADE,
    files BLOB NOT NULL
) STRICT;

-- What files of a directory contained when last read, one marshalled table per directory.
CREATE TABLE file_digests (
    root TEXT PRIMARY KEY,
    entries BLOB NOT NULL,
    saved INTEGER NOT NULL
) STRICT;

-- The content digest of a selection of a finished root.
CREATE TABLE content_digests (
    chain_id TEXT NOT NULL,
    selector TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (chain_id, selector)
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_mounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    made INTEGER NOT NULL,
    used INTEGER NOT NULL
) STRICT;

-- What the garbage collector must leave: the snapshot of every record (`runtime.store.collect`).
CREATE VIEW roots_builder AS SELECT 'snapshot' AS kind, snapshot AS thing FROM cache_records WHERE snapshot != '';
