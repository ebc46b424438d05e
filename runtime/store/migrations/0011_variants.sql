-- The images a name stands for when it stands for several platforms, in the order of their index. The one in `tags` is
-- among them: what this host runs. A name that moves forgets them.
CREATE TABLE variants (
    name     TEXT NOT NULL REFERENCES tags (name) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    image    TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (name, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX variants_image ON variants (image);

CREATE VIEW roots_variants AS
    SELECT 'image' AS kind, variants.image AS thing
    FROM variants JOIN tags USING (name) WHERE variants.image <> tags.image;
