-- Volumes of the local driver: directories volumes/<name>/_data that outlive containers.

CREATE TABLE volumes (
    name      TEXT PRIMARY KEY,
    anonymous INTEGER NOT NULL DEFAULT 0,    -- nobody chose the name: goes with `rm -v`, `--rm` and prune
    labels    TEXT NOT NULL DEFAULT '{}',
    options   TEXT NOT NULL DEFAULT '{}',    -- type, device, o: mounted instead of the directory
    created   REAL NOT NULL
) STRICT;

-- Which containers have it mounted, running or not. No foreign key on the container: its row comes later.
CREATE TABLE volume_uses (
    volume    TEXT NOT NULL REFERENCES volumes (name),
    container TEXT NOT NULL,
    PRIMARY KEY (volume, container)
) STRICT, WITHOUT ROWID;

CREATE INDEX volume_uses_container ON volume_uses (container);
