"""Everything pipe keeps, in one directory: blobs by digest, snapshots, the database, and who is using what.

A thing exists once it was renamed into place complete; its database row follows. Knows nothing of registries,
containers or builds: those rooms keep their rows in tables of their own (`migrations/`).
"""

import sys

from runtime.store.store import Store as Store

# Walks over trees recurse: two or three frames for each of the 2048 names the longest path has. (The interpreter keeps
# these frames on its heap, so this costs no stack.)
sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
