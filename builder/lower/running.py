"""RUN to a graph operation: argument list, environment, mounts, heredocs (FEATURES A-39, A-56 … A-64, A-80 … A-82)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping

from builder.dockerfile.ast import Run
from builder.dockerfile.heredocs import parse_heredoc
from builder.dockerfile.mounts import ResolvedMount
from builder.dockerfile.nodes import Node
from builder.graph import Exec, RunMount, Vertex
from builder.lower.arguments import NEVER_IN_ENVIRONMENT
from builder.lower.state import StageState, clean_path

PIPES = "/dev/pipes"
_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent"


def command_line(
    command: Run, shell: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[tuple[str, bytes], ...]]:
    """The argument list, and scripts that have to lie in /dev/pipes for it."""
    node = command.node
    if not node.heredocs:
        return ((*shell, " ".join(command.words)) if command.shell else command.words), ()
    text, first = command.words[0], node.heredocs[0]
    if parse_heredoc(text) is None:
        # The shell reads these itself; the text is put together as it was.
        bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
        return (*shell, text + bodies), ()
    body = first.chomped
    if body.startswith("#!"):
        script = (first.name, body.encode("utf-8", "surrogateescape"))
        return (*shell, f"{PIPES}/{first.name}"), (script,)
    return (*shell, body), ()


def lower_run(
    command: Run,
    argv: tuple[str, ...],
    files: tuple[tuple[str, bytes], ...],
    mounts: list[tuple[ResolvedMount, Vertex | None]],
    state: StageState,
    *,
    proxies: Mapping[str, str],
    network: str,
    namespace: str,
    make: Callable[..., Vertex],
) -> Vertex:
    """The vertex of a RUN. A proxy counts only where no variable of that name is set."""
    inputs = [state.root]
    lowered = [
        _mount(command.node, number, mount, source, inputs, state, namespace)
        for number, (mount, source) in enumerate(mounts)
    ]
    own = {name: value for name, value in state.variables.items() if name not in NEVER_IN_ENVIRONMENT}
    operation = Exec(
        argv=argv,
        env=tuple({**proxies, **own}.items()),
        cwd=state.directory,
        user=state.config.user,
        network=command.network or network,
        security=command.security or "sandbox",
        mounts=tuple(lowered),
        files=files,
        platform=str(state.platform),
    )
    return make(operation, tuple(inputs))


def _mount(
    node: Node,
    number: int,
    mount: ResolvedMount,
    source: Vertex | None,
    inputs: list[Vertex],
    state: StageState,
    namespace: str,
) -> RunMount:
    if mount.kind == "secret":
        return _secret(mount, state)
    if mount.kind == "ssh":
        return _agent(number, mount, state)
    target = clean_path(state.directory, mount.target)
    if target == "/":
        raise node.error(
            f"invalid mount target {mount.target or '/'!r}", "--mount", hint="give target=/some/directory"
        )
    place = -1
    if source is not None:
        inputs.append(source)
        place = len(inputs) - 1
    cache = mount.kind == "cache"
    name = mount.id or posixpath.normpath(mount.target or target)
    return RunMount(
        type=mount.kind,
        target=target,
        source="" if mount.kind == "tmpfs" else posixpath.normpath("/" + mount.source).lstrip("/"),
        input=place,
        readonly=mount.readonly,
        id=(f"{namespace}/{name}" if namespace else name) if cache else "",
        sharing=mount.sharing or "shared",
        mode=mount.mode,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
        size=mount.size,
    )


def _secret(mount: ResolvedMount, state: StageState) -> RunMount:
    name = mount.id or mount.source or posixpath.basename(mount.target) or mount.env or ""
    target = clean_path(state.directory, mount.target) if mount.target else ""
    if not target and mount.env is None:
        target = f"{_SECRETS}/{posixpath.basename(name)}"
    return RunMount(
        type="secret", target=target, readonly=True, id=name, required=mount.required,
        mode=0o400 if mount.mode is None else mount.mode, uid=mount.uid or 0, gid=mount.gid or 0, env=mount.env or "",
    )  # fmt: skip


def _agent(number: int, mount: ResolvedMount, state: StageState) -> RunMount:
    target = clean_path(state.directory, mount.target) if mount.target else f"{_AGENT}.{number}"
    return RunMount(
        type="ssh", target=target, readonly=True, id=mount.id or mount.source or "default", required=mount.required,
        mode=0o600 if mount.mode is None else mount.mode, uid=mount.uid or 0, gid=mount.gid or 0,
    )  # fmt: skip
