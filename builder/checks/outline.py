"""What a target can be given: arguments, secrets, ssh keys, cache mounts (`--call=outline`), and the targets there are
(`--call=targets`). FEATURES A-104."""

from __future__ import annotations

from builder.dockerfile import ast
from builder.dockerfile.instructions import description_of
from builder.dockerfile.mounts import resolve_mount
from builder.dockerfile.nodes import Node
from builder.dockerfile.words import Expanded, Lexer, WordError
from builder.lower.graph import walk_stages
from builder.lower.options import LowerOptions
from builder.lower.state import StageState
from registry_client.values import frozen
from runtime.spans import Span


@frozen
class OutlineArgument:
    name: str
    value: str
    description: str
    span: Span


@frozen
class OutlineMount:
    """A secret, an ssh key or a cache, by the id it is known by."""

    name: str
    required: bool
    span: Span


@frozen
class Outline:
    name: str
    description: str
    arguments: tuple[OutlineArgument, ...]
    secrets: tuple[OutlineMount, ...]
    ssh: tuple[OutlineMount, ...]
    caches: tuple[OutlineMount, ...]


@frozen
class Target:
    name: str
    description: str
    base: str
    platform: str
    default: bool
    span: Span


def targets_of(dockerfile: ast.Dockerfile) -> tuple[Target, ...]:
    """All stages, the default one marked."""
    last = len(dockerfile.stages) - 1
    return tuple(
        Target(s.name, s.start.description, s.base, s.platform, s.number == last, s.span)
        for s in dockerfile.stages
    )


def outline_of(dockerfile: ast.Dockerfile, options: LowerOptions) -> Outline:
    """The outline of the target, stages it needs included. Base images need not be known."""
    gathering = _Gathering(dockerfile, options)
    walk_stages(dockerfile, options, {}, gathering)
    wanted = options.target.lower()
    named = (stage for stage in reversed(dockerfile.stages) if not wanted or stage.name == wanted)
    target = next(named)
    return Outline(
        target.name,
        target.start.description,
        gathering.arguments(),
        tuple(gathering.mounts["secret"].values()),
        tuple(gathering.mounts["ssh"].values()),
        tuple(gathering.mounts["cache"].values()),
    )


class _Gathering:
    """A `stage.Watcher` that notes what stages take in."""

    def __init__(self, dockerfile: ast.Dockerfile, options: LowerOptions) -> None:
        self._dockerfile, self._options = dockerfile, options
        self._lexer = Lexer(dockerfile.directives.escape)
        self._found: dict[str, OutlineArgument] = {}
        self._used: set[str] = set()
        self._globals = {
            argument.name: arg.node for arg in dockerfile.arguments for argument in arg.arguments
        }
        self.mounts: dict[str, dict[str, OutlineMount]] = {"secret": {}, "ssh": {}, "cache": {}}

    def arguments(self) -> tuple[OutlineArgument, ...]:
        """Those of the stages, and the global ones they or their FROM lines use."""
        from builder.lower.arguments import global_arguments

        values = global_arguments(self._dockerfile, self._options)
        for name, node in self._globals.items():
            if name in self._used:
                description = description_of(node.comments, name)
                self._found[name] = OutlineArgument(name, values.get(name, ""), description, node.span)
        return tuple(sorted(self._found.values(), key=lambda argument: argument.span.line))

    def begin(self, number: int) -> None:
        stage = self._dockerfile.stages[number]
        for word in (stage.base, stage.platform):
            try:
                found = self._lexer.expand_fully(word)
            except WordError:
                continue
            self._used |= found.matched | found.unmatched

    def expanded(self, node: Node, word: str, found: Expanded, state: StageState) -> None:
        """Uses of variables do not matter here, only declarations."""

    def instruction(self, command: ast.Command, state: StageState) -> None:
        if isinstance(command, ast.Arg):
            self._note_arguments(command, state)
        if isinstance(command, ast.Run):
            for mount in command.mounts:
                self._note_mount(command.node, mount, state)

    def _note_arguments(self, command: ast.Arg, state: StageState) -> None:
        from builder.lower.arguments import platform_arguments

        given = platform_arguments(self._options, "")
        for argument in command.arguments:
            if argument.default is None and argument.name in given:
                continue  # nobody has to give it
            if argument.default is None and argument.name in self._globals:
                self._used.add(argument.name)
                continue
            value = self._options.build_args.get(argument.name)
            if value is None:
                value = self._expand(argument.default or "", state)
            self._found[argument.name] = OutlineArgument(
                argument.name, value, argument.description, command.node.span
            )

    def _note_mount(self, node: Node, mount: ast.Mount, state: StageState) -> None:
        found = resolve_mount(node, mount, lambda word: self._expand(word, state))
        kept = self.mounts.get(found.kind)
        if kept is None:
            return
        fallback = "default" if found.kind == "ssh" else found.target.rpartition("/")[2]
        name = found.id or found.source or (found.target if found.kind == "cache" else fallback)
        required = found.required or (name in kept and kept[name].required)
        kept[name] = OutlineMount(name, required, node.span)

    def _expand(self, word: str, state: StageState) -> str:
        try:
            return self._lexer.expand(word, state.variables)
        except WordError:
            return word
