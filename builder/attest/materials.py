"""What came from outside into a build: images, downloads, checkouts, each with the digest it had (B-15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builder.attest.purl import image_purl
from builder.built import Built, Occasion
from builder.cache import Cache
from builder.graph import GitSource, HttpSource, ImageSource, Vertex
from builder.lower.remotes import without_credentials
from builder.solver import reachable
from builder.state import FilesState, State
from registry_client.oci.digest import Digest
from registry_client.values import frozen


@frozen
class Material:
    """`algorithm` is sha256 of a file or manifest, sha1 of a git commit."""

    uri: str
    algorithm: str
    hex: str

    def to_json(self) -> dict[str, Any]:
        return {"uri": self.uri, "digest": {self.algorithm: self.hex}}


def materials(cache: Cache, built: Built) -> tuple[Material, ...]:
    """Everything remote the graph reaches, each once, sorted."""
    found = (
        material
        for vertex in reachable([built.graph.root])
        if (material := _material(cache, vertex, built.states)) is not None
    )
    return tuple(sorted(set(found), key=lambda each: (each.uri, each.hex)))


def _material(cache: Cache, vertex: Vertex, states: Mapping[Digest, State]) -> Material | None:
    operation = vertex.operation
    if isinstance(operation, ImageSource):
        algorithm, _, encoded = operation.digest.partition(":")
        return Material(image_purl(operation.reference, operation.platform), algorithm, encoded)
    state = states.get(vertex.digest)
    if isinstance(operation, (HttpSource, GitSource)) and isinstance(state, FilesState):
        return remote_material(cache, operation, state.definition)
    return None


def remote_material(cache: Cache, source: HttpSource | GitSource, key: str) -> Material | None:
    """A download or checkout whose cache record is `key`."""
    fields = cache.fields(key)
    if isinstance(source, GitSource):
        commit = str(fields.get("commit", ""))
        return _git(source, commit) if commit else None
    digest = str(fields.get("sha256", ""))
    return Material(without_credentials(source.url), *digest.split(":", 1)) if digest else None


def _git(source: GitSource, commit: str) -> Material:
    uri = without_credentials(source.url)
    if source.ref or source.subdir:
        uri += f"#{source.ref}" + (f":{source.subdir}" if source.subdir else "")
    return Material(uri, "sha1" if len(commit) == 40 else "sha256", commit)


def context_material(cache: Cache, occasion: Occasion) -> Material | None:
    """The context, if it came from a git repository or a server."""
    if not occasion.context_key:
        return None
    from builder.lower.remotes import remote_source

    source = remote_source(occasion.request.context)
    return None if source is None else remote_material(cache, source, occasion.context_key)


def all_materials(cache: Cache, occasion: Occasion, built: Built) -> tuple[Material, ...]:
    """Those of the graph and the context's."""
    found: Iterable[Material] = materials(cache, built)
    context = context_material(cache, occasion)
    return tuple(dict.fromkeys((*found, *((context,) if context else ()))))
