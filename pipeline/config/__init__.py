"""From the text of a pipe.yaml or compose file to values: `document` (YAML with spans), `shapes` (the words a table of keys
is written in), `interpolate`, `units`, `container` (Compose's keys), `pipefile` and `compose` (the tables themselves).

Everything here is pure but `load.py`, which reads the files. What a value means for a run is decided in `pipeline.plan`.
"""
