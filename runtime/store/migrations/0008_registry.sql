-- What the embedded registry knows beyond images and their tags. `repository` is the familiar name: shop/app, busybox.

-- Manifests and indexes that were pushed, by tag or by digest; their bytes are blobs.
CREATE TABLE registry_manifests (
    repository    TEXT NOT NULL,
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    size          INTEGER NOT NULL,
    subject       TEXT NOT NULL DEFAULT '',  -- the digest of the manifest it refers to
    artifact_type TEXT NOT NULL DEFAULT '',
    annotations   TEXT NOT NULL DEFAULT '{}',
    pushed        REAL NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX registry_manifests_subject ON registry_manifests (repository, subject);

-- What a tag was pushed as. It counts while the image's own tag still names `image`: a later build moves the tag on.
CREATE TABLE registry_tags (
    repository TEXT NOT NULL,
    tag        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    image      TEXT NOT NULL DEFAULT '',     -- '' for what is no image: signatures, charts
    reference  TEXT NOT NULL DEFAULT '',     -- the image's tag: docker.io/shop/app:1
    updated    REAL NOT NULL,
    PRIMARY KEY (repository, tag)
) STRICT, WITHOUT ROWID;

-- Blobs on their way into an image (kept for a day without one), and blobs deleted from a repository.
CREATE TABLE registry_blobs (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    deleted    INTEGER NOT NULL DEFAULT 0,
    seen       REAL NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

-- Upload sessions; the bytes lie under ingest/.
CREATE TABLE registry_uploads (
    id         TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    updated    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Kept: what has a tag, what refers to something that is kept, what was pushed within the last week; a blob alone a day.
-- An image's manifest goes with its image, however new it is: `pipe rmi` is to free the space.
CREATE VIEW roots_registry AS
    SELECT 'blob' AS kind, t.digest AS thing FROM registry_tags t
    WHERE t.image = '' OR EXISTS (SELECT 1 FROM tags WHERE tags.name = t.reference AND tags.image = t.image)
    UNION
    SELECT 'blob', m.digest FROM registry_manifests m
    WHERE (m.pushed > unixepoch() - 7 * 86400
           AND (m.artifact_type NOT IN ('application/vnd.oci.image.config.v1+json',
                                        'application/vnd.docker.container.image.v1+json')
                OR m.digest IN (SELECT digest FROM manifests)))
       OR m.subject IN (SELECT digest FROM registry_tags)
       OR m.subject IN (SELECT digest FROM manifests)
       OR m.subject IN (SELECT digest FROM registry_manifests WHERE subject <> '')
    UNION
    SELECT 'blob', digest FROM registry_blobs WHERE deleted = 0 AND seen > unixepoch() - 86400;
