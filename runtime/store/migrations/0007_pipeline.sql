-- Runs of pipelines, what came of their nodes, results to reuse, and what is deployed where.

CREATE TABLE runs (
    id       TEXT PRIMARY KEY,
    project  TEXT NOT NULL,
    root     TEXT NOT NULL,               -- directory of the pipe.yaml
    kind     TEXT NOT NULL,               -- build, test, deploy, hook
    request  TEXT NOT NULL,               -- what was asked, as JSON, so that `pipe resume` can ask it again
    revision TEXT NOT NULL DEFAULT '',    -- commit of the work tree
    owner    TEXT NOT NULL,               -- the process that works on it
    started  REAL NOT NULL,
    finished REAL,                        -- NULL while it runs, or when its process died
    outcome  TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX runs_started ON runs (started);

CREATE TABLE run_nodes (
    run      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    node     TEXT NOT NULL,
    kind     TEXT NOT NULL,
    started  REAL NOT NULL,
    finished REAL NOT NULL,
    outcome  TEXT NOT NULL,
    error    TEXT NOT NULL DEFAULT '',
    detail   TEXT NOT NULL DEFAULT '',
    key      TEXT NOT NULL DEFAULT '',    -- of a stage's result
    image    TEXT NOT NULL DEFAULT '',    -- image id: built, or tested
    result   TEXT NOT NULL DEFAULT '{}',  -- outputs, test counts, artifacts, as JSON
    PRIMARY KEY (run, node)
) STRICT, WITHOUT ROWID;

-- A green stage by its key: everything it was a function of.
CREATE TABLE stage_results (
    key     TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    stage   TEXT NOT NULL,
    run     TEXT NOT NULL,                -- the run whose journal has its log
    made    REAL NOT NULL,
    used    REAL NOT NULL,
    fields  TEXT NOT NULL,                -- the named parts of the key, as JSON, to say what changed
    result  TEXT NOT NULL,                -- as in run_nodes
    log     BLOB NOT NULL                 -- its output, compressed, to be replayed
) STRICT;

CREATE INDEX stage_results_stage ON stage_results (project, stage, made);

-- An image and a stage that was green in a run that built that very image: what a deploy asks for.
CREATE TABLE verified_images (
    project TEXT NOT NULL,
    image   TEXT NOT NULL,
    stage   TEXT NOT NULL,
    run     TEXT NOT NULL,
    made    REAL NOT NULL,
    PRIMARY KEY (project, image, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    project     TEXT NOT NULL,
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,         -- counts per environment, from 1
    run         TEXT NOT NULL,
    revision    TEXT NOT NULL DEFAULT '',
    who         TEXT NOT NULL,
    started     REAL NOT NULL,
    finished    REAL,
    outcome     TEXT NOT NULL DEFAULT '', -- done, failed, rolled back
    reason      TEXT NOT NULL DEFAULT '',
    config_hash TEXT NOT NULL,
    release     TEXT NOT NULL,            -- the services with their image ids, complete enough to bring it back, as JSON
    UNIQUE (project, environment, number)
) STRICT;
