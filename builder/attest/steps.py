"""What only `mode=max` tells: the graph, where each step stands in the Dockerfile, and which layers it made. Pure."""

from __future__ import annotations

import base64
from typing import Any

from builder.built import Built, Occasion
from builder.graph import GitSource, HttpSource, Vertex, operation_record
from builder.lower.remotes import without_credentials
from builder.solver import reachable
from builder.state import RootState
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Manifest
from runtime.spans import Span


def _numbered(built: Built) -> dict[Digest, tuple[str, Vertex]]:
    return {
        vertex.digest: (f"step{number}", vertex)
        for number, vertex in enumerate(reachable([built.graph.root]))
    }


def build_config(built: Built) -> dict[str, Any]:
    """Every step with what it does and which steps it takes from."""
    numbered = _numbered(built)
    steps = [
        {
            "id": name,
            "op": _operation(vertex),
            "inputs": [f"{numbered[each.digest][0]}:0" for each in vertex.inputs],
        }
        for name, vertex in numbered.values()
    ]
    return {"steps": steps, "digestMapping": {digest: name for digest, (name, _) in numbered.items()}}


def _operation(vertex: Vertex) -> Any:
    record = operation_record(vertex.operation)
    if isinstance(vertex.operation, (HttpSource, GitSource)):
        record["url"] = without_credentials(vertex.operation.url)
    return {**record, "label": vertex.label} if vertex.label else record


def build_metadata(occasion: Occasion, built: Built, manifest: Manifest | None) -> dict[str, Any]:
    """The Dockerfile, the lines each step comes from, and the layers there were after it."""
    numbered = _numbered(built)
    source = {
        "locations": {
            name: {"locations": [{"ranges": [_range(vertex.span)]}]}
            for name, vertex in numbered.values()
            if vertex.span is not None
        },
        "infos": [
            {
                "filename": occasion.dockerfile_name.rpartition("/")[2],
                "language": "Dockerfile",
                "data": base64.b64encode(occasion.dockerfile).decode(),
            }
        ],
    }
    return {"source": source, **({"layers": _layers(built, manifest)} if manifest is not None else {})}


def _range(span: Span) -> dict[str, Any]:
    return {"start": {"line": span.line}, "end": {"line": span.last_line}}


def _layers(built: Built, manifest: Manifest) -> dict[str, Any]:
    """For each step the image is made of, its chain of layers as they are in the manifest."""
    found = {}
    for digest, (name, _) in _numbered(built).items():
        state = built.states.get(digest)
        if not isinstance(state, RootState):
            continue
        below = state.diff_ids()
        if below and below == built.image.diff_ids[: len(below)]:
            found[f"{name}:0"] = [[layer.to_json() for layer in manifest.layers[: len(below)]]]
    return found
