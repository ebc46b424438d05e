"""What a pipe.yaml asks for. Frozen values with the place where each was written; nothing is decided here.

`pipeline.config` makes them, `pipeline.plan` turns them into nodes. Texts may still hold placeholders (see
`pipeline.config.interpolate`) for what only the plan or the run knows.
"""

from __future__ import annotations

from pipeline.conditions import ALWAYS, Condition
from pipeline.config.container import NOWHERE, ContainerKeys, Pairs, SecretSpec, SecretUse, ServiceSpec
from registry_client.values import field, frozen
from runtime.errors import InvalidInput
from runtime.spans import Span


@frozen
class ScriptPart:
    """One item of `run:`; `line` and `column` are where its text begins in the file."""

    text: str
    span: Span
    block: bool = False  # text of a `|` block: its lines are lines of the file


@frozen
class Script:
    """Shell text. Contexts in it have become variables; `contexts` are the paths those variables carry."""

    parts: tuple[ScriptPart, ...] = ()
    contexts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)


@frozen(kw_only=True)
class ImageSpec:
    """One image to build. Paths are relative to the file's directory."""

    name: str
    span: Span = NOWHERE
    context: str = "."
    dockerfile: str = ""
    dockerfile_inline: str = ""
    target: str = ""
    args: tuple[tuple[str, str | None], ...] = ()
    tags: tuple[str, ...] = ()
    labels: Pairs = ()
    platforms: tuple[str, ...] = ()
    additional_contexts: Pairs = ()
    secrets: tuple[SecretUse, ...] = ()
    ssh: tuple[str, ...] = ()
    network: str = ""
    extra_hosts: Pairs = ()
    shm_size: int = 0
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    rewrite_timestamp: bool = False
    pull: bool = False
    push: bool = False
    when: Condition = ALWAYS


@frozen
class Need:
    """A stage that must be green first. `optional`: it may be left out of the run by its condition."""

    stage: str
    optional: bool = False
    artifacts: bool = False
    span: Span = NOWHERE


@frozen(kw_only=True)
class MatrixSpec:
    """`axes` are multiplied; `exclude` removes, `include` adds or extends, as in GitHub's matrix."""

    axes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    include: tuple[Pairs, ...] = ()
    exclude: tuple[Pairs, ...] = ()
    max_parallel: int = 0
    fail_fast: bool = False
    span: Span = NOWHERE


@frozen(kw_only=True)
class RetrySpec:
    """`when`: failed, error, timeout; empty is any of them. `exit_codes` narrows `failed`."""

    max: int = 0
    when: tuple[str, ...] = ()
    exit_codes: tuple[int, ...] = ()
    backoff: float = 0.0


@frozen(kw_only=True)
class AllowFailure:
    """With `exit_codes`, only those are allowed."""

    allowed: bool = False
    exit_codes: tuple[int, ...] = ()


@frozen(kw_only=True)
class ArtifactSpec:
    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    when: str = "always"  # on_success, on_failure, always


@frozen(kw_only=True)
class StageSpec:
    """One test stage: a container, its script, what must be there before and what is kept of it after."""

    name: str
    container: ContainerKeys
    span: Span = NOWHERE
    run: Script = field(default_factory=Script)
    before: Script = field(default_factory=Script)
    after: Script = field(default_factory=Script)
    shell: tuple[str, ...] = ("/bin/sh",)
    needs: tuple[Need, ...] = ()
    matrix: MatrixSpec | None = None
    services: tuple[ServiceSpec, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    junit: tuple[str, ...] = ()
    artifacts: ArtifactSpec = field(default_factory=ArtifactSpec)
    retry: RetrySpec = field(default_factory=RetrySpec)
    timeout: float = 0.0
    allow_failure: AllowFailure = field(default_factory=AllowFailure)
    cache: bool = True
    checkout: str = ""  # where the work tree is mounted, "" for nowhere
    when: Condition = ALWAYS


@frozen(kw_only=True)
class HealthGate:
    """What must hold before a release counts as up. Empty: the containers' own health checks."""

    http: str = ""
    status: int = 0  # 0: any 2xx or 3xx
    tcp: str = ""
    exec: tuple[str, ...] = ()
    service: str = ""  # the one `exec` runs in
    timeout: float = 60.0
    interval: float = 1.0
    soak: float = 0.0  # must hold this long
    span: Span = NOWHERE


@frozen
class NetworkSpec:
    name: str
    external: bool = False
    internal: bool = False
    subnet: str = ""
    gateway: str = ""
    real_name: str = ""
    labels: Pairs = ()


@frozen
class VolumeSpec:
    name: str
    external: bool = False
    real_name: str = ""
    labels: Pairs = ()
    options: Pairs = ()


@frozen(kw_only=True)
class EnvironmentSpec:
    """Somewhere to deploy to. `needs` None: all stages; else environments and stages that must be green."""

    name: str
    span: Span = NOWHERE
    engine: str = "local"
    compose: str = ""
    compose_span: Span = NOWHERE
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    needs: tuple[Need, ...] | None = None
    approve: bool = False
    health: HealthGate = field(default_factory=HealthGate)
    project: str = ""
    url: str = ""
    timeout: float = 0.0
    when: Condition = ALWAYS
    kubernetes: bool = False


@frozen
class Reference:
    """A context used in a text of `owner` (`stages/unit`), for the plan to check and to order by."""

    owner: str
    path: str
    span: Span


@frozen(kw_only=True)
class PipelineSpec:
    """A whole pipe.yaml. `root` is the directory it stands in."""

    name: str
    root: str
    file: str = "pipe.yaml"
    registry: str = ""
    env: tuple[tuple[str, str | None], ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    images: tuple[ImageSpec, ...] = ()
    stages: tuple[StageSpec, ...] = ()
    environments: tuple[EnvironmentSpec, ...] = ()
    jobs: int = 0
    timeout: float = 0.0
    references: tuple[Reference, ...] = ()
    warnings: tuple[tuple[str, Span], ...] = ()
    span: Span = NOWHERE

    def image(self, name: str) -> ImageSpec | None:
        return next((image for image in self.images if image.name == name), None)

    def stage(self, name: str) -> StageSpec | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def environment(self, name: str) -> EnvironmentSpec | None:
        return next((env for env in self.environments if env.name == name), None)


class InvalidPipeline(InvalidInput):
    """The mistakes of a file; the first is the message, all are in `problems`."""

    def __init__(self, problems: tuple[InvalidInput, ...]) -> None:
        first = problems[0]
        super().__init__(first.message, first.span, hint=first.hint)
        self.problems = problems
