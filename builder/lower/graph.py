"""`bases` and `lower`: a Dockerfile and the configs of its base images to a build graph. Pure (DESIGN.md, Nouns).

Stages are gone through in the order of the file, and only those the target needs; vertices are shared, so a stage that
three others copy from is one sub-graph.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.dockerfile.ast import Dockerfile, Stage
from builder.dockerfile.nodes import Node
from builder.graph import Copy, CopySource, HttpSource, ImageSource, LocalSource, Scratch, StageGraph, Vertex
from builder.lower.arguments import proxy_environment
from builder.lower.options import BaseWanted, LowerOptions, ResolvedBase
from builder.lower.remotes import remote_source
from builder.lower.stage import StageLowering, Watcher, numbered_steps
from builder.lower.stages import NamedContext, Origin, PlannedStage, StagePlans
from builder.lower.state import StageState, fresh_state
from registry_client.oci.config import ImageConfig
from registry_client.oci.platform import Platform
from registry_client.values import replace
from runtime.errors import InvalidInput

_NO_BASES: Mapping[BaseWanted, ResolvedBase] = {}


def bases(
    dockerfile: Dockerfile, options: LowerOptions, known: Mapping[BaseWanted, ResolvedBase] = _NO_BASES
) -> tuple[BaseWanted, ...]:
    """The images the target needs, in no case those of other stages (A-89).

    ONBUILD triggers of a base may want further images: ask again with what was resolved, until nothing new comes.
    """
    configs = {wanted: resolved.config for wanted, resolved in known.items()}
    return tuple(StagePlans(dockerfile, options).reachable(configs)[1])


def lower(
    dockerfile: Dockerfile,
    options: LowerOptions,
    configs: Mapping[BaseWanted, ResolvedBase],
    watcher: Watcher | None = None,
) -> StageGraph:
    """The graph of the target stage. `configs` answers everything `bases` asked for."""
    return Lowering(StagePlans(dockerfile, options), configs, watcher).target()


def walk_stages(
    dockerfile: Dockerfile,
    options: LowerOptions,
    known: Mapping[BaseWanted, ResolvedBase],
    watcher: Watcher,
    *,
    everything: bool = False,
) -> tuple[BaseWanted, ...]:
    """Go through the stages the target needs, or `everything`, for the watcher alone; bases may be unknown.

    The answer is the images these stages want.
    """
    plans = StagePlans(dockerfile, options)
    return Lowering(plans, known, watcher, lenient=True).walk(everything=everything)


class Lowering:
    """All stages of one build; what stages need to know of each other (`stage.Surroundings`)."""

    def __init__(
        self,
        plans: StagePlans,
        configs: Mapping[BaseWanted, ResolvedBase],
        watcher: Watcher | None,
        *,
        lenient: bool = False,
    ) -> None:
        options = plans.options
        self._plans, self._configs, self._options = plans, configs, options
        self.states: dict[int, StageState] = {}
        self._lenient = lenient
        self.escape = plans.dockerfile.directives.escape
        self.build_args = options.build_args
        self.arguments: Mapping[str, str] = plans.arguments
        self.proxies: Mapping[str, str] = proxy_environment(options.build_args)
        self.network = options.network
        self.cache_namespace = options.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        self.policy = options.policy
        self.watcher: Watcher | None = watcher

    def target(self) -> StageGraph:
        configs = {wanted: resolved.config for wanted, resolved in self._configs.items()}
        numbers, _wanted = self._plans.reachable(configs)
        for number in sorted(numbers):
            self.states[number] = self._stage(self._plans.planned[number])
        stage = self._plans.target.stage
        return self.finished(stage, self.states[stage.number])

    def walk(self, *, everything: bool) -> tuple[BaseWanted, ...]:
        configs = {wanted: resolved.config for wanted, resolved in self._configs.items()}
        targets = [planned.stage for planned in self._plans.planned] if everything else None
        numbers, wanted = self._plans.reachable(configs, targets)
        for number in sorted(numbers):
            self.states[number] = self._stage(self._plans.planned[number])
        return tuple(wanted)

    def _stage(self, planned: PlannedStage) -> StageState:
        stage, state = planned.stage, self._begin(planned)
        only = len(self._plans.planned) == 1 and not stage.name
        counts_base = isinstance(planned.base, BaseWanted)
        lowering = StageLowering(
            stage,
            state,
            self,
            name=" ".join(filter(None, (self._prefix(state), "" if only else stage.title))),
            total=counts_base + numbered_steps(planned.commands),
            no_cache=self._options.no_cache or stage.title in self._options.no_cache_filter,
        )
        if counts_base:
            state.root = state.base = replace_label(
                state.base, lowering.label(f"FROM {_shown(planned.base)}")
            )
        if self.watcher:
            self.watcher.begin(stage.number)
        for position, command in enumerate(planned.commands):
            lowering.run(command, onbuild=position < len(planned.triggers))
        return state

    def _prefix(self, state: StageState) -> str:
        return str(state.platform) if self._options.multi_platform else ""

    def _begin(self, planned: PlannedStage) -> StageState:
        base = planned.base
        if isinstance(base, Stage):
            return self.states[base.number].inherited()
        vertex, config = self._vertex(base, planned.stage.start.node)
        platform = planned.platform or self._options.target_platform
        if self._options.platform is None and planned.platform is None and config is not None:
            platform = config.platform
        state = fresh_state(platform, vertex, config)
        state.complete = not isinstance(base, BaseWanted) or base in self._configs
        if not isinstance(vertex.operation, (Scratch, ImageSource)):
            self._fill(state, vertex, planned.stage)
        return state

    def _fill(self, state: StageState, files: Vertex, stage: Stage) -> None:
        """FROM a named context that is a directory or URL: its files are copied into an empty root."""
        state.base = state.root = Vertex(operation=Scratch(), label="scratch")
        operation = Copy(sources=(CopySource(input=1, paths=(".",)),), dest="/")
        vertex = Vertex(
            operation=operation, inputs=(state.root, files), label=f"FROM {stage.base}", span=stage.span
        )
        state.grow(vertex, f"FROM {stage.base} # buildkit")

    def _vertex(self, origin: Origin, node: Node) -> tuple[Vertex, ImageConfig | None]:
        """The vertex of something that is no stage, and the config it comes with."""
        if origin is None:
            return Vertex(operation=Scratch(), label="scratch"), None
        if isinstance(origin, NamedContext):
            return self._context(origin, node), None
        assert isinstance(origin, BaseWanted)
        resolved = self._configs.get(origin)
        if resolved is None and self._lenient:
            resolved = ResolvedBase("", ImageConfig(platform=origin.platform))
        if resolved is None:
            raise InvalidInput(f"base image {origin.reference} was not resolved", node.span)
        source = ImageSource(
            reference=origin.reference, digest=resolved.digest, platform=str(origin.platform)
        )
        return Vertex(operation=source, label=_shown(origin), span=node.span), resolved.config

    def _context(self, context: NamedContext, node: Node) -> Vertex:
        label = f"context {context.name}"
        try:
            remote = remote_source(context.value)
        except ValueError as error:
            raise InvalidInput(f"build context {context.name}: {error}") from error
        if remote is not None and self._options.policy:
            from builder.lower.permitted import permitted_remote

            remote = permitted_remote(self._options.policy, remote, node.span)
        operation = LocalSource(name=context.name) if remote is None else remote
        vertex = Vertex(operation=operation, label=label, span=node.span)
        if not isinstance(remote, HttpSource):
            return vertex
        # A named context from a URL is an archive.
        unpacked = Copy(sources=(CopySource(input=1, paths=(remote.filename,), unpack=True),), dest="/")
        return Vertex(
            operation=unpacked, inputs=(Vertex(operation=Scratch()), vertex), label=label, span=node.span
        )

    def source(self, name: str, node: Node, number: int, *, index_allowed: bool) -> Vertex:
        """What `--from=name` stands for: the root of a stage, an image, a named context."""
        if not index_allowed and name == "scratch":
            return Vertex(operation=Scratch(), label="scratch")
        origin = self._plans.origin(name, node, index_allowed=index_allowed, current=number)
        if isinstance(origin, Stage):
            return self.states[origin.number].root
        return self._vertex(origin, node)[0]

    def finished(self, stage: Stage, state: StageState) -> StageGraph:
        """A stage as a result of its own."""
        config, base = state.finished(), state.base_config
        return StageGraph(
            name=stage.name,
            index=stage.number,
            platform=state.platform,
            root=state.root,
            base=state.base,
            base_config=base,
            instructions=tuple(state.history),
            config=ImageConfig(
                platform=self._result_platform(state.platform),
                config=replace(config, labels={**config.labels, **self._options.labels}),
                author=state.author,
                extra=_kept_extra(base),
            ),
        )

    def _result_platform(self, platform: Platform) -> Platform:
        """What the image says it is for: the platform asked for, else that of the base (A-97)."""
        return self._options.platform or platform


def replace_label(vertex: Vertex, label: str) -> Vertex:
    return Vertex(
        operation=vertex.operation,
        inputs=vertex.inputs,
        label=label,
        span=vertex.span,
        no_cache=vertex.no_cache,
    )


def _shown(origin: Origin) -> str:
    if not isinstance(origin, BaseWanted):
        return ""
    return origin.reference


def _kept_extra(base: ImageConfig | None) -> dict[str, object]:
    """`os.version` and `os.features` go on; the base's own cache records do not."""
    return {key: value for key, value in base.extra.items() if key.startswith("os.")} if base else {}
