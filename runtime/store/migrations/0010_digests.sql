-- What files of a directory contained when they were last read: replaces the table of 0006, which was one blob per context.

DROP TABLE file_digests;

-- `stretches` holds pairs of 32 bytes: what the names and statuses of some files hash to, and what their content does.
CREATE TABLE digest_roots (
    id        INTEGER PRIMARY KEY,
    root      TEXT NOT NULL UNIQUE,       -- device and inode of the context
    stretches BLOB NOT NULL,
    saved     INTEGER NOT NULL
) STRICT;

-- Records of 64 bytes, one per file: inode, size, mtime, ctime, digest.
CREATE TABLE file_digests (
    root      INTEGER NOT NULL REFERENCES digest_roots (id) ON DELETE CASCADE,
    directory INTEGER NOT NULL,           -- inode
    files     BLOB NOT NULL,
    PRIMARY KEY (root, directory)
) STRICT, WITHOUT ROWID;

-- Stretches, by what their statuses hash to, that a record's snapshot has just as they would be copied again.
CREATE TABLE cache_stretches (
    key       TEXT PRIMARY KEY REFERENCES cache_records (key) ON DELETE CASCADE,
    stretches BLOB NOT NULL
) STRICT;
