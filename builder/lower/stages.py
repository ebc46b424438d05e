"""Which stages there are, what each is made from, and which of them the target needs (FEATURES A-38, A-89 … A-92).

Names are looked up in two ways: `FROM x` takes the latest stage *before* it whose (lower case) name is exactly `x`;
`COPY --from=x` and `--mount from=x` take the last stage of that name in the file, in any case, and it must come before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from builder.dockerfile.ast import Command, Copy, Dockerfile, Onbuild, Run, Stage
from builder.dockerfile.nodes import Node
from builder.dockerfile.words import Lexer, WordError
from builder.lower.arguments import global_arguments
from builder.lower.frontends import require_known_frontend
from builder.lower.options import BaseWanted, LowerOptions
from builder.lower.triggers import parse_triggers
from registry_client.oci.config import ImageConfig
from registry_client.oci.platform import Platform, parse_platform
from registry_client.reference import parse_reference
from registry_client.values import frozen
from runtime.errors import Denied, InvalidInput, did_you_mean
from runtime.spans import Span

_IMAGE_ID = re.compile("sha256:[0-9a-f]{64}")
SCRATCH = "scratch"
CONTEXT = "context"
IMAGE_SCHEME = "docker-image://"
LAYOUT_SCHEME = "oci-layout://"


@frozen
class NamedContext:
    """A named context that took the place of a stage or an image."""

    name: str
    value: str


# What a stage, a COPY --from or a mount takes its files from.
Origin = Stage | BaseWanted | NamedContext | None  # None: the empty root


class PlannedStage:
    """One stage with its base found. `triggers` are the ONBUILD instructions of its base, known once that is resolved."""

    def __init__(
        self, stage: Stage, base: Origin, platform: Platform | None, *, replaced: bool = False
    ) -> None:
        self.stage, self.base, self.platform = stage, base, platform
        self.replaced = replaced  # by a named context: its instructions are not run
        self.triggers: tuple[Command, ...] = ()
        self.refusal: Denied | None = None  # by the source policy; told if the stage is needed

    @property
    def commands(self) -> tuple[Command, ...]:
        return () if self.replaced else (*self.triggers, *self.stage.commands)


class StagePlans:
    """All stages of a file under one set of options."""

    def __init__(self, dockerfile: Dockerfile, options: LowerOptions) -> None:
        require_known_frontend(dockerfile, options)
        self.dockerfile = dockerfile
        self.options = options
        self.arguments = global_arguments(dockerfile, options)
        self._lexer = Lexer(dockerfile.directives.escape)
        self._last_of_name = {stage.name: stage for stage in dockerfile.stages if stage.name}
        self.planned: list[PlannedStage] = []
        self._so_far: dict[str, Stage] = {}  # what FROM finds: the latest before the stage at hand
        for stage in dockerfile.stages:
            self.planned.append(self._plan_unless_denied(stage))
            if stage.name:
                self._so_far[stage.name] = stage
        self.target = self._find_target()

    # --- FROM -----------------------------------------------------------------------------------------------------

    def _plan_unless_denied(self, stage: Stage) -> PlannedStage:
        try:
            return self._plan(stage)
        except Denied as error:
            planned = PlannedStage(stage, None, None)
            planned.refusal = error
            return planned

    def _plan(self, stage: Stage) -> PlannedStage:
        name = self._expand(stage.base, stage)
        if not name:
            raise stage.start.node.error(
                f"base name ({stage.base}) should not be blank", stage.base, hint=self._unset_hint(stage.base)
            )
        platform = self._platform(stage) if stage.platform else None
        if stage.name and (context := self.named_context(stage.name, platform)):
            origin = self._context_origin(context, stage.start.node, platform)
            return PlannedStage(stage, origin, platform, replaced=True)
        if (base := self._so_far.get(name)) is not None:
            return PlannedStage(stage, base, platform)
        return PlannedStage(stage, self._image(name, stage.start.node, platform), platform)

    def _expand(self, word: str, stage: Stage) -> str:
        try:
            return self._lexer.expand(word, self.arguments)
        except WordError as error:
            raise stage.start.node.error(str(error), word) from error

    def _unset_hint(self, word: str) -> str:
        unset = sorted(self._lexer.expand_fully(word, self.arguments).unmatched)
        near = did_you_mean(unset[0], self.arguments) if unset else ""
        return near or "declare the variable with ARG before the first FROM, and give it a default"

    def _platform(self, stage: Stage) -> Platform:
        text = self._expand(stage.platform, stage)
        try:
            return parse_platform(text)
        except ValueError as error:
            hint = self._unset_hint(stage.platform) if not text else ""
            raise stage.start.node.error(
                f"failed to parse platform {stage.platform}: {error}", stage.platform, hint=hint
            ) from error

    def _image(self, name: str, node: Node, platform: Platform | None) -> Origin:
        if name == SCRATCH:
            return None
        wanted = platform or self.options.target_platform
        try:
            reference = parse_reference(name).or_latest()
        except ValueError as error:
            names = [stage.name for stage in self.dockerfile.stages if stage.name]
            raise node.error(str(error), name, hint=did_you_mean(name, names)) from error
        if context := self.named_context(name, wanted):
            return self._context_origin(context, node, wanted)
        return self._permitted(str(reference), wanted, node.locate(name))

    def _permitted(self, reference: str, wanted: Platform, span: Span | None) -> BaseWanted:
        """The image, or what the source policy takes in its place."""
        if self.options.policy:
            from builder.lower.permitted import permitted_image

            reference = permitted_image(self.options.policy, reference, span)
        return BaseWanted(reference, wanted, span)

    # --- named contexts -------------------------------------------------------------------------------------------

    def named_context(self, name: str, platform: Platform | None) -> NamedContext | None:
        """The context given for a name: `name::platform` first; images by their short name without `:latest`."""
        contexts = self.options.contexts
        if not contexts or name.lower() in (SCRATCH, CONTEXT):
            return None
        plain = _context_key(name)
        keys = {_context_key(key): key for key in contexts}
        for wanted in (f"{plain}::{platform or self.options.target_platform}", plain):
            if wanted in keys:
                return NamedContext(keys[wanted], contexts[keys[wanted]])
        return None

    def _context_origin(self, context: NamedContext, node: Node, platform: Platform | None) -> Origin:
        wanted = platform or self.options.target_platform
        if context.value.startswith(IMAGE_SCHEME):
            reference = context.value.removeprefix(IMAGE_SCHEME)
            if _IMAGE_ID.fullmatch(reference):
                return BaseWanted(reference, wanted, node.span)  # of the store, whatever names it has
            try:
                return self._permitted(str(parse_reference(reference).or_latest()), wanted, node.span)
            except ValueError as error:
                raise InvalidInput(f"build context {context.name}={context.value}: {error}") from error
        if context.value.startswith(LAYOUT_SCHEME):
            return BaseWanted(context.value, wanted, node.span)
        return context

    # --- the target and what it needs -----------------------------------------------------------------------------

    def _find_target(self) -> PlannedStage:
        wanted = self.options.target
        if not wanted:
            return self.planned[-1]
        stage = self._last_of_name.get(wanted.lower())
        if stage is None:
            names = list(self._last_of_name)
            hint = did_you_mean(wanted, names) or "stages with a name: " + (", ".join(names) or "none")
            raise InvalidInput(f"target stage {wanted!r} could not be found", hint=hint)
        return self.planned[stage.number]

    def origin(self, name: str, node: Node, *, index_allowed: bool, current: int) -> Origin:
        """What `--from=name` of an instruction in stage number `current` means (A-57, A-71)."""
        if index_allowed and name.isascii() and name.isdigit():
            if int(name) >= len(self.dockerfile.stages):
                raise node.error(f"invalid stage index {name}", name, hint="stages are counted from 0")
            return self._earlier(self.dockerfile.stages[int(name)], name, node, current)
        stage = self._last_of_name.get(name.lower())
        if stage is not None:
            return self._earlier(stage, name, node, current)
        return self._image(name, node, None)

    def _earlier(self, stage: Stage, name: str, node: Node, current: int) -> Stage:
        if stage.number < current:
            return stage
        chain = self._chain(stage.number, current)
        if chain:
            raise node.error(f"circular dependency detected on stage: {' -> '.join(chain)}", name)
        title = self.dockerfile.stages[current].title
        raise node.error(
            f"cannot copy from stage {name!r}, it needs to be defined before current stage {title!r}",
            name,
            hint=f"move the stage that begins at line {stage.span.line} above line {self._line(current)}",
        )

    def _line(self, number: int) -> int:
        return self.dockerfile.stages[number].span.line

    def _chain(self, start: int, goal: int) -> list[str]:
        """The stages from `goal` over `start` back to `goal`, with their lines; empty when there is no such way."""
        ways: dict[int, list[int]] = {start: [start]}
        queue = [start]
        for number in queue:
            if number == goal:
                return [self._named(step) for step in (goal, *ways[number])]
            for other in self._mentions(number):
                if other not in ways:
                    ways[other] = [*ways[number], other]
                    queue.append(other)
        return []

    def _named(self, number: int) -> str:
        return f"{self.dockerfile.stages[number].title} (line {self._line(number)})"

    def _mentions(self, number: int) -> Iterator[int]:
        """Stages a stage names, in whatever order they stand."""
        planned = self.planned[number]
        if isinstance(planned.base, Stage):
            yield planned.base.number
        for command in planned.stage.commands:
            for name, index_allowed in origins_of(command):
                if index_allowed and name.isdigit() and int(name) < len(self.dockerfile.stages):
                    yield int(name)
                elif name.lower() in self._last_of_name:
                    yield self._last_of_name[name.lower()].number

    def reachable(
        self, configs: Mapping[BaseWanted, ImageConfig], targets: list[Stage] | None = None
    ) -> tuple[set[int], list[BaseWanted]]:
        """The numbers of the stages the target (or `targets`) needs, and their images, as far as `configs` has triggers."""
        numbers: set[int] = set()
        wanted: dict[BaseWanted, None] = {}
        queue: list[Origin] = list(targets or [self.target.stage])
        for origin in queue:
            if isinstance(origin, BaseWanted):
                wanted[origin] = None
            if not isinstance(origin, Stage) or origin.number in numbers:
                continue
            numbers.add(origin.number)
            planned = self.planned[origin.number]
            if planned.refusal is not None:
                raise planned.refusal
            queue.append(planned.base)
            planned.triggers = self._triggers(planned, configs)
            for command in planned.commands:
                for name, index_allowed in origins_of(command):
                    queue.append(
                        self.origin(name, command.node, index_allowed=index_allowed, current=origin.number)
                    )
        return numbers, list(wanted)

    def _triggers(
        self, planned: PlannedStage, configs: Mapping[BaseWanted, ImageConfig]
    ) -> tuple[Command, ...]:
        """The ONBUILD instructions that fire right after this FROM; none are handed on (A-53)."""
        base, node = planned.base, planned.stage.start.node
        if planned.replaced:
            return ()
        if isinstance(base, Stage):
            texts = tuple(c.expression for c in base.commands if isinstance(c, Onbuild))
            return parse_triggers(texts, node)
        if isinstance(base, BaseWanted) and base in configs:
            return parse_triggers(configs[base].config.on_build, node)
        return ()


def origins_of(command: Command) -> Iterator[tuple[str, bool]]:
    """The names an instruction takes files from, and whether a number there is a stage's."""
    if isinstance(command, Copy) and command.origin:
        yield command.origin, True
    if isinstance(command, Run):
        for mount in command.mounts:
            # `from=0` of a mount is an image called 0; an empty root needs nothing.
            if mount.origin and mount.kind in ("bind", "cache") and mount.origin != SCRATCH:
                yield mount.origin, False


def _context_key(name: str) -> str:
    plain, separator, platform = name.partition("::")
    try:
        plain = parse_reference(plain).or_latest().familiar.removesuffix(":latest")
    except ValueError:
        pass  # the name of a stage
    return f"{plain}{separator}{platform}"
