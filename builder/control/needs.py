"""Which files of the context the steps of a build use. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from builder.graph import Copy, Exec, LocalSource, StageGraph, Vertex
from builder.solver import reachable

_CONTEXT = "context"


def context_paths(graphs: Iterable[StageGraph]) -> set[str]:
    """Patterns relative to the context, "" for all of it; none when no step uses it."""
    return {_clean(path) for graph in graphs for vertex in reachable([graph.root]) for path in _used(vertex)}


def _used(vertex: Vertex) -> Iterator[str]:
    match vertex.operation:
        case Copy():
            for source in vertex.operation.sources:
                if _is_context(vertex, source.input):
                    yield from source.paths
        case Exec():
            for mount in vertex.operation.mounts:
                if mount.input >= 0 and _is_context(vertex, mount.input):
                    yield mount.source


def _is_context(vertex: Vertex, number: int) -> bool:
    operation = vertex.inputs[number].operation
    return isinstance(operation, LocalSource) and operation.name == _CONTEXT


def _clean(path: str) -> str:
    """From the root of the context, which nothing leads out of."""
    return posixpath.normpath(f"/{path}").lstrip("/")
