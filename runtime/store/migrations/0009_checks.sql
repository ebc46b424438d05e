-- What the build checks said of a Dockerfile under given circumstances (builder/checked.py): `key` is the digest of all
-- they looked at, `findings` is JSON. The latest rows are kept.
CREATE TABLE check_findings (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    findings TEXT NOT NULL
) STRICT;
