-- Snapshots, the chains of layers they stand for, and who is using what.

CREATE TABLE snapshots (
    id       TEXT PRIMARY KEY,
    parent   TEXT REFERENCES snapshots (id),
    diff_id  TEXT,                        -- of this snapshot's own directory; NULL while nobody hashed it
    size     INTEGER NOT NULL DEFAULT 0,  -- bytes of the layer's tar
    created  REAL NOT NULL,
    boot     TEXT NOT NULL DEFAULT ''     -- the boot it was made in; '' once the data is known to be on the disk
) STRICT;

CREATE INDEX snapshots_parent ON snapshots (parent);
CREATE INDEX snapshots_unsettled ON snapshots (boot) WHERE boot <> '';

-- What a chain id (image-spec config.md) is unpacked as. Several chains may share a snapshot, because empty layers add
-- nothing; and several snapshots a chain, when it was unpacked or built twice at once: the oldest is the one to use.
CREATE TABLE chains (
    chain_id TEXT NOT NULL,
    snapshot TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    parent   TEXT,                        -- the chain id below, NULL at the bottom
    diff_id  TEXT NOT NULL,
    PRIMARY KEY (chain_id, snapshot)
) STRICT, WITHOUT ROWID;

CREATE INDEX chains_snapshot ON chains (snapshot);

-- Whatever is named here is kept by the garbage collector while its owner lives.
CREATE TABLE leases (
    owner   TEXT NOT NULL,
    kind    TEXT NOT NULL,                -- snapshot, blob, image
    thing   TEXT NOT NULL,
    count   INTEGER NOT NULL DEFAULT 1,
    created REAL NOT NULL,
    PRIMARY KEY (owner, kind, thing)
) STRICT, WITHOUT ROWID;
