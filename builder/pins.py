"""What a build took from elsewhere as a source policy that has the next one take exactly that (FEATURES A-101)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.graph import GitSource, HttpSource, ImageSource, Vertex
from builder.lower.permitted import git_identifier
from builder.policy import CHECKSUM, IMAGE
from builder.solver import reachable
from builder.state import FilesState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.built import Built
    from builder.cache import Cache
    from builder.state import State
    from registry_client.oci.digest import Digest
    from runtime.images.images import Images


def pins(images: Images, cache: Cache, built: Built) -> dict[str, Any]:
    """The policy, sorted. An image that was only built here has no digest others could find it by, and is left out."""
    found = {
        rule["selector"]["identifier"]: rule
        for vertex in reachable([built.graph.root])
        if (rule := _rule(images, cache, vertex, built.states)) is not None
    }
    return {"rules": [found[identifier] for identifier in sorted(found)]}


def _rule(
    images: Images, cache: Cache, vertex: Vertex, states: Mapping[Digest, State]
) -> dict[str, Any] | None:
    source = vertex.operation
    if isinstance(source, ImageSource):
        name = source.reference.partition("@")[0]
        if source.reference.startswith("oci-layout://") or images.records.get(source.digest) is not None:
            return None
        return _pin(IMAGE + source.reference, f"{IMAGE}{name}@{source.digest}")
    state = states.get(vertex.digest)
    if not isinstance(source, (HttpSource, GitSource)) or not isinstance(state, FilesState):
        return None
    fields = cache.fields(state.definition)
    if isinstance(source, GitSource):
        place = git_identifier(source).partition("#")[0]
        subdir = f":{source.subdir}" if source.subdir else ""
        return (
            _pin(git_identifier(source), f"{place}#{fields['commit']}{subdir}")
            if fields.get("commit")
            else None
        )
    digest = fields.get("sha256", "")
    return _pin(source.url, source.url, {CHECKSUM: str(digest)}) if digest else None


def _pin(identifier: str, destination: str, attributes: Mapping[str, str] | None = None) -> dict[str, Any]:
    updates: dict[str, Any] = {"identifier": destination}
    if attributes:
        updates["attrs"] = dict(attributes)
    return {
        "action": "CONVERT",
        "selector": {"identifier": identifier, "match_type": "EXACT"},
        "updates": updates,
    }
