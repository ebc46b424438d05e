"""What a bill of material looks at beside the result: stages on the way to it, and the context (FEATURES A-35).

BuildKit's arguments BUILDKIT_SBOM_SCAN_STAGE and …_CONTEXT say so, before the first FROM for all stages or in one for itself: true,
false, or names of stages. Only stages that are built are looked at, and of the context only what steps use, if the target asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.dockerfile.ast import Dockerfile
from builder.graph import Copy, CopySource, Exec, Instruction, LocalSource, Scratch, StageGraph, Vertex
from builder.lower.graph import Lowering
from builder.lower.options import BaseWanted, LowerOptions, ResolvedBase
from builder.lower.stages import StagePlans
from builder.lower.state import StageState
from builder.request import truth
from registry_client.oci.config import ContainerConfig, ImageConfig
from registry_client.oci.platform import Platform
from registry_client.values import frozen, replace

_STAGE, _CONTEXT = "BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SBOM_SCAN_CONTEXT"
_MARK = "pipe.scanned"  # a label by which the image of such a root is told from the user's own


@frozen
class Scanned:
    """A root to look at, as an image of its own. `name` is the stage's, or `context`."""

    name: str
    graph: StageGraph


def lower_scanned(
    dockerfile: Dockerfile, options: LowerOptions, configs: Mapping[BaseWanted, ResolvedBase]
) -> tuple[Scanned, ...]:
    """The roots to look at, those of stages in the order of the file. The arguments are those of `lower`."""
    plans = StagePlans(dockerfile, options)
    lowering = Lowering(plans, configs, None)
    result = lowering.target()
    found: dict[str, StageGraph] = {}
    for number, state in lowering.states.items():
        stage = plans.planned[number].stage
        if stage is not plans.target.stage and _is_asked(_STAGE, stage.title, state, plans):
            found[stage.title] = lowering.finished(stage, state)
    target = plans.target.stage
    if _is_asked(_CONTEXT, target.title, lowering.states[target.number], plans):
        found["context"] = _context(result)
    return tuple(Scanned(name, _marked(name, graph)) for name, graph in found.items())


def _is_asked(argument: str, stage: str, state: StageState, plans: StagePlans) -> bool:
    asked = _is_enabled(plans.arguments.get(argument, ""), stage)
    for each in state.arguments:
        if each.name == argument and each.default is not None:
            asked = _is_enabled(each.default, stage)
    return asked


def _is_enabled(value: str, stage: str) -> bool:
    said = truth(value)
    return stage in value.split(",") if said is None else said


def _context(result: StageGraph) -> StageGraph:
    """The files of the context that the result was made with, by their names there."""
    paths = tuple(sorted(_paths_used(result.root)))
    whole = any(path.strip("./") == "" for path in paths)
    root: Vertex = Vertex(operation=Scratch(), label="scratch")
    instructions: tuple[Instruction, ...] = ()
    base = root
    if paths:
        source = CopySource(input=1, paths=(".",) if whole else paths)
        files = Vertex(operation=LocalSource(name="context"), label="context")
        operation = Copy(sources=(source,), dest="/", parents=not whole)
        root = Vertex(operation=operation, inputs=(root, files), label="context for the bill of material")
        instructions = (Instruction(created_by="COPY . / # the context", vertex=root),)
    return _graph_of_files(result.platform, root, base, instructions)


def _graph_of_files(
    platform: Platform, root: Vertex, base: Vertex, instructions: tuple[Instruction, ...]
) -> StageGraph:
    return StageGraph(
        name="context",
        index=0,
        platform=platform,
        root=root,
        base=base,
        base_config=None,
        instructions=instructions,
        config=ImageConfig(platform=platform, config=ContainerConfig()),
    )


def _paths_used(root: Vertex) -> set[str]:
    """What COPY, ADD and bind mounts of all steps take from the context."""
    found: set[str] = set()
    seen: set[str] = set()
    queue = [root]
    for vertex in queue:
        for each in vertex.inputs:
            if each.digest not in seen:
                seen.add(each.digest)
                queue.append(each)
        for number, paths in _taken(vertex):
            operation = vertex.inputs[number].operation
            if isinstance(operation, LocalSource) and operation.name == "context":
                found.update(paths)
    return found


def _taken(vertex: Vertex) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Which paths a step takes from which of its inputs."""
    operation = vertex.operation
    if isinstance(operation, Copy):
        return [(source.input, source.paths) for source in operation.sources]
    if isinstance(operation, Exec):
        return [(mount.input, (mount.source or ".",)) for mount in operation.mounts if mount.input >= 0]
    return []


def _marked(name: str, graph: StageGraph) -> StageGraph:
    config = graph.config.config
    marked = replace(config, labels={**config.labels, _MARK: name})
    return replace(graph, config=replace(graph.config, config=marked))
