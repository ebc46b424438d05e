"""Bake files: several images described in `docker-bake.hcl`, `docker-bake.json` or a Compose file, built together (FEATURES B-21).

`definition` says what there may be, `files`, `hcl` and `compose` read it, `variables` and `evaluated` work it out, `targets` makes
the builds that are meant out of it.
Pure but for the reading of files; how a target is built is the command's business.
"""
