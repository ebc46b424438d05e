-- Containers as they were asked for. How they are at the moment is told by containers/<id>/state.json, which their shim writes.

CREATE TABLE containers (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    image      TEXT NOT NULL,                -- image id
    image_name TEXT NOT NULL,                -- as it was asked for
    snapshot   TEXT NOT NULL,                -- the top snapshot of the root, '' for an image without layers
    creator    TEXT NOT NULL,                -- the process that makes and starts it in one go; '' once that is done
    created    REAL NOT NULL,
    spec       TEXT NOT NULL,                -- JSON
    image_config TEXT NOT NULL,              -- JSON: the `config` of the image
    mounts     TEXT NOT NULL DEFAULT '[]'    -- JSON: as resolved at creation
) STRICT;

CREATE INDEX containers_image ON containers (image);

-- What the garbage collector must leave alone for our sake.
CREATE VIEW roots_containers AS
    SELECT 'image' AS kind, image AS thing FROM containers
    UNION ALL SELECT 'snapshot', snapshot FROM containers WHERE snapshot != '';
