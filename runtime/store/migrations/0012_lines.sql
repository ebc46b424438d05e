-- The files a step took, as lines, in pieces that records share: of a large context in which one file changed, what is new is kept.
-- It replaces the table of 0006, one blob per record; what that held becomes one piece each.
ALTER TABLE cache_files RENAME TO cache_files_before;

CREATE TABLE cache_lines (
    id     INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,          -- tells pieces apart (`builder.content`)
    lines  BLOB NOT NULL
) STRICT;

CREATE TABLE cache_files (
    id  INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE REFERENCES cache_records (key) ON DELETE CASCADE
) STRICT;

CREATE TABLE cache_pieces (
    files INTEGER NOT NULL REFERENCES cache_files (id) ON DELETE CASCADE,
    piece INTEGER NOT NULL REFERENCES cache_lines (id),
    PRIMARY KEY (files, piece)
) STRICT, WITHOUT ROWID;

CREATE INDEX cache_pieces_piece ON cache_pieces (piece);

INSERT INTO cache_lines (digest, lines) SELECT CAST(key AS BLOB), files FROM cache_files_before;
INSERT INTO cache_files (key) SELECT key FROM cache_files_before;
INSERT INTO cache_pieces SELECT cache_files.id, cache_lines.id FROM cache_files JOIN cache_lines ON digest = CAST(key AS BLOB);
DROP TABLE cache_files_before;

-- A piece goes with the last record that has it.
CREATE TRIGGER cache_pieces_gone AFTER DELETE ON cache_pieces
WHEN NOT EXISTS (SELECT 1 FROM cache_pieces WHERE piece = OLD.piece)
BEGIN
    DELETE FROM cache_lines WHERE id = OLD.piece;
END;
