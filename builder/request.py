"""What a build is asked for, and what it answers. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from registry_client.values import field, frozen
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from builder.policy import SourcePolicy
    from builder.sharing.wanted import CacheFrom, CacheTo
    from builder.ssh import AgentWanted
    from registry_client.oci.digest import Digest
    from registry_client.oci.platform import Platform
    from runtime.containers.spec import Limits, Rlimit
    from runtime.spans import Span


@frozen(kw_only=True)
class OutputWanted:
    """One `--output`. `type` is image, registry, oci, docker, local or tar; `dest` "-" is standard output."""

    type: str
    dest: str = ""
    name: str = ""
    compression: str = "gzip"
    rewrite_timestamp: bool = False
    options: Mapping[str, str] = field(default_factory=dict, hash=False)


@frozen(kw_only=True)
class AttestWanted:
    """What is to be said about the result beside it. `provenance` is "", min or max."""

    provenance: str = ""
    builder_id: str = ""
    reproducible: bool = False
    sbom: bool = False
    generator: str = ""  # the image of a scanner instead of our own
    vcs: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # source, revision of a directory's work tree

    def __bool__(self) -> bool:
        return bool(self.provenance) or self.sbom


@frozen(kw_only=True)
class BuildRequest:
    """`context` is a directory, `-`, a git or http URL. Secrets are values."""

    context: str = "."
    dockerfile: str | None = None  # a path, a URL, or "-" for standard input; None: Dockerfile in the context
    archive: str = ""  # with context "-": the file that is read in place of standard input, and removed
    dockerfile_text: bytes | None = None  # the text itself, wherever it came from
    ignore_text: bytes | None = None  # of the ignore file, likewise: none is looked for beside the Dockerfile
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    pull: Literal["auto", "always", "missing", "never"] = "auto"  # auto: what is here, else the registry
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False, hash=False)
    ssh: Mapping[str, AgentWanted] = field(default_factory=dict, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: tuple[str, ...] = ()  # `[WHERE:]KEY=VALUE`
    attest: AttestWanted = AttestWanted()
    metadata: bool = False  # somebody wants to know how it was built
    network: str = "default"
    outputs: tuple[OutputWanted, ...] = ()
    build_contexts: Mapping[str, str] = field(default_factory=dict, hash=False)
    epoch: int | None = None
    rewrite_timestamp: bool = False
    add_hosts: tuple[tuple[str, str], ...] = ()
    limits: Limits | None = None
    rlimits: tuple[Rlimit, ...] = ()
    cgroup_parent: str = ""
    allow: frozenset[str] = frozenset()
    policy: SourcePolicy | None = None  # of what comes from elsewhere
    pinned: bool = False  # somebody wants to know the pins of what came from there
    cache_from: tuple[CacheFrom, ...] = ()
    cache_to: tuple[CacheTo, ...] = ()
    node: str = "build"  # the name of this build in the event stream

    @property
    def keeps_git_dir(self) -> bool:
        """Whether a context from a repository has its `.git`: BuildKit's argument says so."""
        return truth(self.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")) or False

    @property
    def as_several(self) -> bool:
        """Whether the result is one of several platforms, though it may be only one: BuildKit's argument says so."""
        name = "BUILDKIT_MULTI_PLATFORM"
        text = self.build_args.get(name, "")
        asked, several = truth(text), len(self.platforms) > 1
        if text and asked is None:
            raise InvalidInput(f"build argument {name}: {text!r}", hint="want true or false")
        if asked is False and several:
            raise InvalidInput(f"build argument {name}={text} and several platforms", hint="leave one out")
        return several if asked is None else asked


def truth(text: str) -> bool | None:
    """What a word says in BuildKit's arguments, as Go's strconv.ParseBool reads it; None: neither."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    return False if text in ("0", "f", "F", "FALSE", "false", "False") else None


@frozen
class OutputMade:
    """Where an output went, and what it is known by there. `config` is the digest of the config, "" with several platforms."""

    type: str
    dest: str
    digest: str = ""
    descriptor: Mapping[str, Any] = field(default_factory=dict, hash=False)
    config: str = ""


@frozen
class BuildWarning:
    """Something the user should look at."""

    message: str
    span: Span | None = None
    rule: str = ""  # of a build check, with the page about it and what it is about
    url: str = ""
    detail: str = ""


@frozen(kw_only=True)
class BuildResult:
    """`cached` is True when no step had to be run."""

    image_id: Digest
    tags: tuple[str, ...] = ()
    manifest_digest: Digest | None = None
    outputs: tuple[OutputMade, ...] = ()
    warnings: tuple[BuildWarning, ...] = ()
    cached: bool = False
    images: tuple[Digest, ...] = ()  # one for each platform
    pins: Mapping[str, Any] = field(default_factory=dict, hash=False)  # a source policy
    ref: str = ""  # by which the build is known afterwards
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)  # by platform
