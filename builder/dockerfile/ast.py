"""The typed Dockerfile: stages of instructions whose flags are parsed and checked.

Nothing is expanded yet: a `word` here still has its variables and quotes. Every instruction keeps its `node`, which knows
where it stands. (Named tuples: see `nodes.py`.)
"""

from __future__ import annotations

from builder.dockerfile.directives import Directives
from builder.dockerfile.nodes import Heredoc, Node
from registry_client.oci.config import Healthcheck as HealthcheckConfig
from registry_client.tuples import NamedTuple
from runtime.spans import Source, Span


class Pair(NamedTuple):
    """`key=value` of ENV or LABEL; `legacy` is the form without `=`."""

    key: str
    value: str
    legacy: bool = False


class Argument(NamedTuple):
    """One name of an ARG; `default` None is "no default", which is not the empty string."""

    name: str
    default: str | None = None
    description: str = ""


class MountOption(NamedTuple):
    """One field of `--mount`; `value` None is a bare word such as `ro`."""

    key: str
    value: str | None
    text: str


class Mount(NamedTuple):
    """A `RUN --mount` as written; `mounts.resolve_mount` makes sense of it once the variables are known."""

    text: str
    options: tuple[MountOption, ...]
    origin: str = ""  # `from=`: never expanded
    kind: str = "bind"


class Add(NamedTuple):
    node: Node
    sources: tuple[str, ...]
    files: tuple[Heredoc, ...]
    dest: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


class Copy(NamedTuple):
    node: Node
    sources: tuple[str, ...]
    files: tuple[Heredoc, ...]
    dest: str
    origin: str = ""  # --from
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


class Run(NamedTuple):
    """`words` is one shell command, or the argument list when `shell` is off."""

    node: Node
    words: tuple[str, ...]
    shell: bool
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


class Cmd(NamedTuple):
    node: Node
    words: tuple[str, ...]
    shell: bool


class Entrypoint(NamedTuple):
    node: Node
    words: tuple[str, ...]
    shell: bool


class Shell(NamedTuple):
    node: Node
    words: tuple[str, ...]


class Env(NamedTuple):
    node: Node
    pairs: tuple[Pair, ...]


class Label(NamedTuple):
    node: Node
    pairs: tuple[Pair, ...]


class Arg(NamedTuple):
    node: Node
    arguments: tuple[Argument, ...]


class Workdir(NamedTuple):
    node: Node
    path: str


class User(NamedTuple):
    node: Node
    user: str


class Expose(NamedTuple):
    node: Node
    ports: tuple[str, ...]


class Volume(NamedTuple):
    node: Node
    paths: tuple[str, ...]


class StopSignal(NamedTuple):
    node: Node
    signal: str


class Healthcheck(NamedTuple):
    node: Node
    check: HealthcheckConfig


class Onbuild(NamedTuple):
    """`expression` is the instruction as text, heredocs included: the image carries it."""

    node: Node
    expression: str


class Maintainer(NamedTuple):
    node: Node
    author: str


Command = (
    Add
    | Copy
    | Run
    | Cmd
    | Entrypoint
    | Shell
    | Env
    | Label
    | Arg
    | Workdir
    | User
    | Expose
    | Volume
    | StopSignal
    | Healthcheck
    | Onbuild
    | Maintainer
)


class From(NamedTuple):
    node: Node
    base: str
    name: str = ""  # in lower case
    platform: str = ""
    description: str = ""


class Stage(NamedTuple):
    number: int  # from 0
    start: From
    commands: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        return self.start.name

    @property
    def base(self) -> str:
        return self.start.base

    @property
    def platform(self) -> str:
        return self.start.platform

    @property
    def title(self) -> str:
        """What people call it: its name, else its number."""
        return self.start.name or f"stage-{self.number}"

    @property
    def span(self) -> Span:
        return self.start.node.span


class Dockerfile(NamedTuple):
    """`arguments` are the ARGs before the first FROM; `empty_continuations` where a blank line stands inside one."""

    source: Source
    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    empty_continuations: tuple[Span, ...] = ()
