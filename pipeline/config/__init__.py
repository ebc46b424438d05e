"""From the text of a pipe.yaml or compose file to values.

`document` is YAML with spans, `shapes` the words a table of keys is written in, `interpolate` variables and contexts. The
tables: `pipefile`, `stages`, `environments`, `container_keys` (Compose's keys) with `mounts`, `uses`, `words`, `ports`; the
values they make are in `container` and `pipeline.spec`. All is pure but `load`, which reads the files. What a value means
for a run is decided in `pipeline.plan`.
"""
