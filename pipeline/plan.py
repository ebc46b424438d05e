"""From a spec and a goal to one DAG of image, stage, push and deploy nodes. Pure: what git and the environment say comes in as `Facts`.

A node waits for what it uses and for what it was told to need, nothing else. `pipe build`, `pipe test` and `pipe
deploy` select the part of the DAG their names need. A node whose condition does not hold stays in the plan, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from pipeline.conditions import Condition, Facts
from pipeline.config.container import Pairs, ServiceSpec
from pipeline.matrix import combination_name, combinations
from pipeline.spec import EnvironmentSpec, ImageSpec, PipelineSpec, StageSpec
from registry_client.values import frozen, replace
from runtime.errors import InvalidInput, NotFound, did_you_mean
from runtime.spans import Span


class Kind(StrEnum):
    IMAGE = "image"
    STAGE = "stage"
    PUSH = "push"
    DEPLOY = "deploy"


@frozen
class Edge:
    """`optional`: the node may have been left out by its condition."""

    node: str
    optional: bool = False


@frozen(kw_only=True)
class Node:
    """`skip` says why it does not run, "" when it does; `reason` why it is in the plan at all."""

    name: str
    kind: Kind
    subject: ImageSpec | StageSpec | EnvironmentSpec
    needs: tuple[Edge, ...] = ()
    matrix: Pairs = ()
    skip: str = ""
    reason: str = ""
    condition: str = ""

    @property
    def group(self) -> str:
        """Nodes of one matrix share it."""
        return f"{self.kind}/{self.subject.name}"

    @property
    def title(self) -> str:
        return self.name.partition("/")[2]


@frozen(kw_only=True)
class Goal:
    """What was asked for. `names` empty: all of that kind. `tests` False: a deploy trusts earlier green runs."""

    kind: Kind
    names: tuple[str, ...] = ()
    tests: bool = True
    start: str = ""  # --from: this stage and those after it
    until: str = ""


@frozen
class Plan:
    """Nodes in an order in which each comes after what it needs."""

    spec: PipelineSpec
    goal: Goal
    nodes: tuple[Node, ...]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


def image_node(name: str) -> str:
    return f"{Kind.IMAGE}/{name}"


def plan_run(spec: PipelineSpec, goal: Goal, facts: Facts) -> Plan:
    """The nodes `goal` needs; NotFound for names that are not there."""
    everything = order(_everything(spec, facts, goal), spec)
    by_name = {node.name: node for node in everything}
    wanted = _closure(_roots(spec, goal, everything), by_name)
    if goal.kind is Kind.DEPLOY and not goal.tests:
        wanted = {name: why for name, why in wanted.items() if by_name[name].kind is not Kind.STAGE}
    nodes = tuple(
        _trim(replace(node, reason=wanted[node.name]), wanted) for node in everything if node.name in wanted
    )
    return Plan(spec, goal, nodes)


def _trim(node: Node, kept: Iterable[str]) -> Node:
    names = set(kept)
    return replace(node, needs=tuple(edge for edge in node.needs if edge.node in names))


def _everything(spec: PipelineSpec, facts: Facts, goal: Goal) -> list[Node]:
    nodes = [_image(image, spec, facts) for image in spec.images]
    for stage in spec.stages:
        nodes.extend(_stage(stage, spec, facts))
    nodes += _pushes(spec, goal)
    nodes.extend(_deploy(environment, spec, facts) for environment in spec.environments)
    return nodes


def _pushes(spec: PipelineSpec, goal: Goal) -> list[Node]:
    """A push waits for the stages its environment waits for: what is in the registry was green."""
    selected = [
        e for e in spec.environments if not goal.names or goal.kind is not Kind.DEPLOY or e.name in goal.names
    ]
    nodes = []
    for image in spec.images:
        users = [e for e in selected if image.push or image.name in deployed_images(e, spec)]
        if users or image.push:
            stages = [edge for e in users for edge in stage_edges(e, spec)]
            needs = _unique([Edge(image_node(image.name)), *stages])
            nodes.append(Node(name=f"push/{image.name}", kind=Kind.PUSH, subject=image, needs=needs))
    return nodes


def stage_edges(environment: EnvironmentSpec, spec: PipelineSpec) -> list[Edge]:
    """The stages that must be green before a deploy: those it names, else all."""
    if environment.needs is None:
        return [Edge(name, True) for stage in spec.stages for name in stage_nodes(spec, stage.name)]
    return [
        Edge(name, need.optional)
        for need in environment.needs
        if not spec.environment(need.stage)
        for name in stage_nodes(spec, need.stage)
    ]


def _image(image: ImageSpec, spec: PipelineSpec, facts: Facts) -> Node:
    verdict = image.when.decide(facts)
    needs = [Edge(image_node(name)) for name in _contexts_of(image, spec)]
    needs += _referenced(f"image/{image.name}", spec, {})
    return Node(
        name=image_node(image.name),
        kind=Kind.IMAGE,
        subject=image,
        needs=_unique(needs),
        skip="" if verdict.holds else verdict.reason,
        condition=verdict.reason,
    )


def _contexts_of(image: ImageSpec, spec: PipelineSpec) -> list[str]:
    """Images named as `additional_contexts: {base: "image:app"}` (Compose says `service:`)."""
    found = [
        value.partition(":")[2]
        for _, value in image.additional_contexts
        if value.startswith(("image:", "service:"))
    ]
    return [name for name in found if spec.image(name)]


def _stage(stage: StageSpec, spec: PipelineSpec, facts: Facts) -> list[Node]:
    nodes = []
    for combination in combinations(stage.matrix):
        values = {f"matrix.{key}": value for key, value in combination}

        def lookup(path: str, values: dict[str, str] = values) -> str | None:
            return values[path] if path in values else facts.lookup(path)

        decided = _planned(stage.when).decide(replace(facts, lookup=lookup))
        nodes.append(
            Node(
                name=f"stage/{combination_name(stage.name, combination)}",
                kind=Kind.STAGE,
                subject=stage,
                needs=_stage_needs(stage, spec, combination),
                matrix=combination,
                skip="" if decided.holds else decided.reason,
                condition=decided.reason,
            )
        )
    return nodes


def _planned(condition: Condition) -> Condition:
    """What of a condition can be decided now: an `if:` about the run is left to the run."""
    return replace(condition, expression=None) if condition.runtime_paths else condition


def _stage_needs(stage: StageSpec, spec: PipelineSpec, combination: Pairs) -> tuple[Edge, ...]:
    from pipeline.config.interpolate import fill

    values = {f"matrix.{key}": value for key, value in combination}
    images = [stage.container.image, *(service.container.image for service in stage.services)]
    needs = [
        Edge(image_node(name))
        for name in (fill(image, values.__getitem__) for image in images)
        if spec.image(name)
    ]
    for need in stage.needs:
        needs.extend(Edge(name, need.optional) for name in stage_nodes(spec, need.stage))
    needs += _referenced(f"stage/{stage.name}", spec, values)
    return _unique(needs)


def stage_nodes(spec: PipelineSpec, name: str) -> list[str]:
    """The node names of a stage (`unit`), or of one of its combinations (`unit@3.12`, `unit (3.12)`)."""
    base, _, rest = name.partition("@") if "@" in name else name.partition(" (")
    stage = spec.stage(base)
    if stage is None:
        return []
    wanted = [value.strip() for value in rest.rstrip(")").split(",")] if rest else []
    names = []
    for combination in combinations(stage.matrix):
        values = [value for _, value in combination]
        if not wanted or values == wanted or (len(wanted) == 1 and wanted[0] in values):
            names.append(f"stage/{combination_name(base, combination)}")
    return names


def _referenced(owner: str, spec: PipelineSpec, values: dict[str, str]) -> list[Edge]:
    """Using another's digest or output is needing it."""
    needs = []
    for reference in spec.references:
        if reference.owner != owner:
            continue
        context, name = reference.path.split(".")[:2]
        if context == "images" and spec.image(name):
            needs.append(Edge(image_node(name)))
        elif context == "stages":
            needs.extend(Edge(node, True) for node in stage_nodes(spec, name))
    return needs


def _deploy(environment: EnvironmentSpec, spec: PipelineSpec, facts: Facts) -> Node:
    verdict = _planned(environment.when).decide(facts)
    needs: list[Edge] = []
    for name in deployed_images(environment, spec):
        needs += [Edge(image_node(name)), Edge(f"push/{name}")]
    needs += [Edge(f"push/{image.name}") for image in spec.images if image.push]
    needs += stage_edges(environment, spec)
    for need in environment.needs or ():
        if spec.environment(need.stage):
            needs.append(Edge(f"deploy/{need.stage}", need.optional))
    needs += _referenced(f"deploy/{environment.name}", spec, {})
    return Node(
        name=f"deploy/{environment.name}",
        kind=Kind.DEPLOY,
        subject=environment,
        needs=_unique(needs),
        skip="" if verdict.holds else verdict.reason,
        condition=verdict.reason,
    )


def deployed_images(environment: EnvironmentSpec, spec: PipelineSpec) -> list[str]:
    """The images of ours an environment's services use, each once."""
    names = [service.container.image for service in environment.services]
    return [name for name in dict.fromkeys(names) if spec.image(name)]


def _unique(edges: list[Edge]) -> tuple[Edge, ...]:
    """One edge to each node; one that is not optional wins."""
    found: dict[str, Edge] = {}
    for edge in edges:
        if edge.node not in found or not edge.optional:
            found[edge.node] = edge
    return tuple(found.values())


def order(nodes: list[Node], spec: PipelineSpec) -> list[Node]:
    """In dependency order, else as in the file; a cycle is an error that names it and where it can be cut."""
    by_name = {node.name: node for node in nodes}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for node in nodes:
        sorter.add(node.name, *(edge.node for edge in node.needs if edge.node in by_name))
    try:
        return [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        # graphlib lists the cycle from dependency to dependant; people read it the other way.
        chain = list(reversed(error.args[1]))
        shown = " → ".join(name.partition("/")[2] for name in chain)
        raise InvalidInput(
            f"a cycle of needs: {shown}",
            _where(by_name[chain[0]], chain[1]),
            hint="remove one of these needs",
        ) from error


def _where(node: Node, needed: str) -> Span:
    needs = getattr(node.subject, "needs", None) or ()
    title = needed.partition("/")[2].partition(" (")[0]
    return next((need.span for need in needs if need.stage.partition("@")[0] == title), node.subject.span)


def _roots(spec: PipelineSpec, goal: Goal, nodes: list[Node]) -> dict[str, str]:
    """The nodes that were asked for, with the reason."""
    match goal.kind:
        case Kind.IMAGE:
            names = goal.names or tuple(image.name for image in spec.images)
            return {_known_image(spec, name): "asked for" for name in names}
        case Kind.DEPLOY:
            return {_known_environment(spec, name): "asked for" for name in goal.names}
        case _:
            return _stage_roots(spec, goal, nodes)


def _stage_roots(spec: PipelineSpec, goal: Goal, nodes: list[Node]) -> dict[str, str]:
    roots: dict[str, str] = {}
    for name in (*goal.names, *filter(None, (goal.start, goal.until))):
        found = stage_nodes(spec, name)
        if not found:
            raise _unknown("stage", name, [stage.name for stage in spec.stages])
        if name in goal.names or name == goal.until:
            roots.update(dict.fromkeys(found, "asked for"))
        if name == goal.start:
            roots.update(dict.fromkeys(_after(set(found), nodes), f"after {name}"))
    if goal.names or goal.start or goal.until:
        return roots
    return {node.name: "all stages" for node in nodes if node.kind in (Kind.STAGE, Kind.IMAGE)}


def _after(start: set[str], nodes: list[Node]) -> list[str]:
    reached = set(start)
    for node in nodes:
        if node.kind is Kind.STAGE and any(edge.node in reached for edge in node.needs):
            reached.add(node.name)
    return [node.name for node in nodes if node.name in reached]


def _known_image(spec: PipelineSpec, name: str) -> str:
    if spec.image(name) is None:
        raise _unknown("image", name, [image.name for image in spec.images])
    return image_node(name)


def _known_environment(spec: PipelineSpec, name: str) -> str:
    if spec.environment(name) is None:
        raise _unknown("environment", name, [environment.name for environment in spec.environments])
    return f"deploy/{name}"


def _unknown(kind: str, name: str, known: list[str]) -> NotFound:
    listed = ", ".join(f"`{word}`" for word in known[:12]) or "none"
    return NotFound(
        f"no {kind} `{name}` in pipe.yaml", hint=did_you_mean(name, known) or f"there is {listed}"
    )


def _closure(roots: dict[str, str], by_name: dict[str, Node]) -> dict[str, str]:
    """All nodes the roots need, with who needs them."""
    found = dict(roots)
    todo = list(roots)
    while todo:
        node = by_name[todo.pop()]
        for edge in node.needs:
            if edge.node in by_name and edge.node not in found:
                found[edge.node] = f"needed by {node.title}"
                todo.append(edge.node)
    return found


def service_order(services: tuple[ServiceSpec, ...]) -> list[ServiceSpec]:
    """Services in the order in which they can be started; a cycle is an error."""
    by_name = {service.name: service for service in services}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for service in services:
        sorter.add(service.name, *(need.service for need in service.depends_on if need.service in by_name))
    try:
        return [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        chain = list(reversed(error.args[1]))
        raise InvalidInput(f"a cycle of depends_on: {' → '.join(chain)}", by_name[chain[0]].span) from error
