"""The same Dockerfiles built by several builders, compared file by file: cases, builders, image archives."""
