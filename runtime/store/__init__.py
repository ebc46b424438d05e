"""Everything pipe keeps, in one directory: blobs by digest, snapshots, the database, and who is using what.

A thing exists once it was renamed into place complete; its database row follows. Knows nothing of registries,
containers or builds: those rooms keep their rows in tables of their own (`migrations/`).
"""

from runtime.store.store import Store as Store
