"""Go through the instructions of one stage (FEATURES A5). Pure: what images and stages are is handed in.

Adding an instruction: a method `_name` here and its line in `_METHODS`. Words are expanded by `_expand`, all words of
one instruction against the variables as they were before it; ARG alone goes from left to right (A-27).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from builder.dockerfile import ast
from builder.dockerfile.heredocs import parse_heredoc
from builder.dockerfile.mounts import resolve_mount
from builder.dockerfile.nodes import Node
from builder.dockerfile.words import Expanded, Lexer, WordError
from builder.graph import LocalSource, MakeDirectory, Vertex
from builder.lower import history
from builder.lower.arguments import NEVER_IN_ENVIRONMENT
from builder.lower.copying import Words, lower_copy
from builder.lower.ports import parse_ports
from builder.lower.running import command_line, lower_run
from builder.lower.signals import is_signal
from builder.lower.state import StageState, clean_path
from runtime.errors import Unsupported

if TYPE_CHECKING:
    from builder.policy import SourcePolicy

# The Dockerfile's heredoc bodies: quotes are text, and the escape is always `\`.
_BODY = Lexer(quotes_are_text=True)
_PORT_LIMIT = 3 * 65_536  # all there are
_NUMBERED = (ast.Add, ast.Copy, ast.Run, ast.Workdir)


class Watcher(Protocol):
    """Who wants to hear about words while they are expanded: the build checks."""

    def begin(self, number: int) -> None: ...

    def expanded(self, node: Node, word: str, found: Expanded, state: StageState) -> None: ...

    def instruction(self, command: ast.Command, state: StageState) -> None: ...


class Surroundings(Protocol):
    """What a stage needs to know of the rest."""

    escape: str
    build_args: Mapping[str, str]
    arguments: Mapping[str, str]  # global ones
    proxies: Mapping[str, str]
    network: str
    cache_namespace: str
    policy: SourcePolicy | None
    watcher: Watcher | None

    def source(self, name: str, node: Node, number: int, *, index_allowed: bool) -> Vertex: ...


class StageLowering:
    """One stage on its way to a graph."""

    def __init__(
        self,
        stage: ast.Stage,
        state: StageState,
        around: Surroundings,
        *,
        name: str,
        total: int,
        no_cache: bool,
    ) -> None:
        self.stage, self.state, self._around = stage, state, around
        self._name, self._total, self._no_cache = name, total, no_cache
        self._step = 0
        self._onbuild = False
        self._lexer = Lexer(around.escape)

    def label(self, text: str) -> str:
        """`[name 2/5] RUN make`: as BuildKit shows it."""
        if not self._total:
            return text
        self._step += 1
        width = int(1 + math.log10(self._total))
        name = f"{self._name} " if self._name else ""
        return f"[{name}{self._step:>{width}}/{self._total}] {'ONBUILD ' if self._onbuild else ''}{text}"

    def run(self, command: ast.Command, *, onbuild: bool = False) -> None:
        """Apply one instruction to the state."""
        self._onbuild = onbuild
        if self._around.watcher:
            self._around.watcher.instruction(command, self.state)
        _METHODS[type(command)](self, command)

    # --- words ----------------------------------------------------------------------------------------------------

    def _expand(self, node: Node, word: str, lexer: Lexer | None = None) -> str:
        if not word:
            return word
        try:
            found = (lexer or self._lexer).expand_fully(word, self.state.variables)
        except WordError as error:
            raise node.error(str(error), word) from error
        if self._around.watcher:
            self._around.watcher.expanded(node, word, found, self.state)
        return found.text

    def _make(
        self, node: Node, operation: Any, inputs: tuple[Vertex, ...], secrets: frozenset[str] = frozenset()
    ) -> Vertex:
        return Vertex(
            operation=operation,
            inputs=inputs,
            label=self.label(self._shown(node, secrets)),
            span=node.span,
            no_cache=self._no_cache,
        )

    def _shown(self, node: Node, secrets: frozenset[str]) -> str:
        """The instruction for people: variables filled in where they are known, secrets masked."""
        text = node.original.strip()
        keyword, rest = (*text.split(None, 1), "")[:2]
        is_run = node.name == "RUN"  # for a shell, which will do its own unquoting
        if "$" in rest or not is_run:
            known = {**self.state.variables, **dict.fromkeys(secrets, "****")}
            lexer = Lexer(self._around.escape, raw_quotes=is_run, raw_escapes=is_run, keep_unset=is_run)
            try:
                rest = lexer.expand(rest, known)
            except WordError:
                pass  # text for a shell, which knows more than we do
        if is_run and node.heredocs and parse_heredoc(node.args[0]):
            body = node.heredocs[0].content.strip().splitlines() or [""]
            rest += f" ({body[0]}{'...' if len(body) > 1 else ''})"
        return f"{keyword.upper()} {rest}"

    # --- files ----------------------------------------------------------------------------------------------------

    def _copy(self, command: ast.Add | ast.Copy) -> None:
        node = command.node
        words = Words(
            sources=tuple(self._expand(node, path) for path in command.sources),
            files=tuple(
                (file, self._expand(node, file.chomped, _BODY) if file.expand else file.chomped)
                for file in command.files
            ),
            dest=self._expand(node, command.dest),
            owner=self._expand(node, command.chown),
            mode=self._expand(node, command.chmod),
            checksum=self._expand(node, command.checksum) if isinstance(command, ast.Add) else "",
        )
        origin = command.origin if isinstance(command, ast.Copy) else ""
        source = self._source(origin, node, index_allowed=True)
        lower_copy(
            command,
            words,
            self.state,
            source,
            lambda operation, inputs: self._make(node, operation, inputs),
            self._around.policy,
        )

    def _source(self, origin: str, node: Node, *, index_allowed: bool) -> Vertex:
        if not origin:
            return Vertex(operation=LocalSource(name="context"), label="context")
        return self._around.source(origin, node, self.stage.number, index_allowed=index_allowed)

    def _run(self, command: ast.Run) -> None:
        node, state = command.node, self.state
        if command.devices:
            raise Unsupported(
                "RUN --device is not supported",
                node.locate("--device"),
                hint="CDI devices cannot be given to builds yet",
            )
        argv, files = command_line(command, state.shell)
        mounts = []
        for mount in command.mounts:
            resolved = resolve_mount(node, mount, lambda word: self._expand(node, word))
            source = None
            if resolved.kind == "bind" or (resolved.kind == "cache" and resolved.origin):
                source = self._source(resolved.origin, node, index_allowed=False)
            mounts.append((resolved, source))
        secrets = frozenset(mount.env for mount, _source in mounts if mount.env)
        text = history.run_text(argv, [(a.name, a.default) for a in state.arguments], state.variables)
        vertex = lower_run(
            command, argv, files, mounts, state,
            proxies=self._around.proxies, network=self._around.network, namespace=self._around.cache_namespace,
            make=lambda operation, inputs: self._make(node, operation, inputs, secrets),
        )  # fmt: skip
        state.grow(vertex, text)

    def _workdir(self, command: ast.Workdir) -> None:
        state = self.state
        path = self._expand(command.node, command.path)
        directory = clean_path(state.directory, path)
        # The config has an absolute path as it was written, as BuildKit's has: `/a/` and `/a/../b`; nothing is what was there.
        written = path if path.startswith("/") else directory if path else state.config.working_dir or "/"
        state.change(working_dir=written)
        state.workdir_set = True
        if directory == "/":
            self._step += 1
            state.record(f"WORKDIR {written}")
            return
        operation = MakeDirectory(path=directory, user=state.config.user)
        state.grow(self._make(command.node, operation, (state.root,)), f"WORKDIR {written}")

    # --- variables ------------------------------------------------------------------------------------------------

    def _env(self, command: ast.Env) -> None:
        state, pairs = self.state, self._pairs(command.node, command.pairs)
        for key, value in pairs:
            state.set_environment(key, value)
        state.record("ENV " + " ".join(f"{key}={value}" for key, value in pairs))

    def _pairs(self, node: Node, pairs: tuple[ast.Pair, ...]) -> list[tuple[str, str]]:
        return [(self._expand(node, pair.key), self._expand(node, pair.value)) for pair in pairs]

    def _arg(self, command: ast.Arg) -> None:
        state, texts = self.state, []
        for argument in command.arguments:
            value = self._argument_value(command.node, argument)
            state.arguments.append(argument._replace(default=value))
            if value is not None and argument.name not in NEVER_IN_ENVIRONMENT:
                state.variables[argument.name] = value
            texts.append(argument.name if value is None else f"{argument.name}={value}")
        state.record("ARG " + " ".join(texts))

    def _argument_value(self, node: Node, argument: ast.Argument) -> str | None:
        """--build-arg, else the default, else the global ARG of that name, else nothing (A-29, A-30)."""
        if argument.name in self._around.build_args:
            return self._around.build_args[argument.name]
        if argument.default is not None:
            return self._expand(node, argument.default)
        return self._around.arguments.get(argument.name)

    # --- config ---------------------------------------------------------------------------------------------------

    def _label(self, command: ast.Label) -> None:
        pairs = self._pairs(command.node, command.pairs)
        self.state.set_labels(dict(pairs))
        self.state.record("LABEL " + " ".join(f"{key}={value}" for key, value in pairs))

    def _words(self, words: tuple[str, ...], shell: bool) -> tuple[str, ...]:
        return (*self.state.shell, " ".join(words)) if shell else words

    def _cmd(self, command: ast.Cmd) -> None:
        words = self._words(command.words, command.shell)
        self.state.change(cmd=words)
        self.state.command_set = True
        self.state.record(history.quoted_list("CMD", words))

    def _entrypoint(self, command: ast.Entrypoint) -> None:
        words = self._words(command.words, command.shell)
        self.state.change(entrypoint=words or None)
        if not self.state.command_set:
            self.state.change(cmd=None)
        self.state.record(history.quoted_list("ENTRYPOINT", words))

    def _shell(self, command: ast.Shell) -> None:
        self.state.change(shell=command.words)
        self.state.record(history.plain_list("SHELL", command.words))

    def _user(self, command: ast.User) -> None:
        user = self._expand(command.node, command.user)
        self.state.change(user=user)
        self.state.record(f"USER {user}")

    def _expose(self, command: ast.Expose) -> None:
        node = command.node
        ports: list[str] = []
        for word in command.ports:
            expanded = self._expand(node, word)
            for port in self._lexer.words(word, self.state.variables) if expanded else ():
                try:
                    ports.extend(parse_ports(port))
                except ValueError as error:
                    raise node.error(str(error), word) from error
                if len(ports) > _PORT_LIMIT:
                    raise node.error(f"EXPOSE of more than {_PORT_LIMIT} ports", word)
        self.state.ports.update(ports)
        self.state.record(history.plain_list("EXPOSE", ports))

    def _volume(self, command: ast.Volume) -> None:
        paths = tuple(self._expand(command.node, path) for path in command.paths)
        if not all(paths):
            raise command.node.error("VOLUME specified can not be an empty string")
        self.state.volumes.update(paths)
        self.state.record(history.plain_list("VOLUME", paths))

    def _stop_signal(self, command: ast.StopSignal) -> None:
        signal = self._expand(command.node, command.signal)
        if not is_signal(signal):
            raise command.node.error(
                f"invalid signal: {signal}", command.signal, hint="such as SIGTERM or 15"
            )
        self.state.change(stop_signal=signal)
        self.state.record(f"STOPSIGNAL {signal}")

    def _healthcheck(self, command: ast.Healthcheck) -> None:
        self.state.change(healthcheck=command.check)
        self.state.record(history.healthcheck_text(command.check))

    def _maintainer(self, command: ast.Maintainer) -> None:
        self.state.author = command.author
        self.state.record(f"MAINTAINER {command.author}")

    def _onbuild_(self, command: ast.Onbuild) -> None:
        """No history entry; the image carries the text."""
        self.state.change(on_build=(*self.state.config.on_build, command.expression))


_METHODS: Mapping[type[Any], Callable[[StageLowering, Any], None]] = {
    ast.Add: StageLowering._copy, ast.Arg: StageLowering._arg, ast.Cmd: StageLowering._cmd,
    ast.Copy: StageLowering._copy, ast.Entrypoint: StageLowering._entrypoint, ast.Env: StageLowering._env,
    ast.Expose: StageLowering._expose, ast.Healthcheck: StageLowering._healthcheck, ast.Label: StageLowering._label,
    ast.Maintainer: StageLowering._maintainer, ast.Onbuild: StageLowering._onbuild_, ast.Run: StageLowering._run,
    ast.Shell: StageLowering._shell, ast.StopSignal: StageLowering._stop_signal, ast.User: StageLowering._user,
    ast.Volume: StageLowering._volume, ast.Workdir: StageLowering._workdir,
}  # fmt: skip


def numbered_steps(commands: tuple[ast.Command, ...]) -> int:
    """How many of the instructions are counted in labels."""
    return sum(isinstance(command, _NUMBERED) for command in commands)
