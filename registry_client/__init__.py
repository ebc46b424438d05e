"""An OCI registry client and the OCI nouns. A library of its own: it imports nothing else of this project."""
