"""The build graph: what the Dockerfile asks for, as values.

A `Vertex` is one operation and its inputs. Equal digests mean the same definition, not the same result. Lowering makes
vertices, the solver runs them; nothing here touches the disk. Every vertex but the sources yields one file-system
state (a snapshot on top of its first input).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from registry_client.oci.config import ImageConfig
from registry_client.oci.digest import Digest
from registry_client.oci.platform import Platform
from registry_client.values import as_dict, field, frozen, is_value
from runtime.spans import Span

# --- sources: no inputs -------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Scratch:
    """The empty root."""


@frozen(kw_only=True)
class ImageSource:
    """A base image, already resolved: `digest` is its manifest digest, or its image id when it was only built here."""

    reference: str
    digest: str
    platform: str


@frozen(kw_only=True)
class LocalSource:
    """A directory of the client: `context`, or the name of a named context. Its content enters the key where it is used."""

    name: str


@frozen(kw_only=True)
class HttpSource:
    """ADD of a URL (FEATURES A-76). The root holds one file, called `filename`."""

    url: str
    filename: str
    checksum: str = ""
    mode: int = 0o600


@frozen(kw_only=True)
class GitSource:
    """A tree of a git repository (FEATURES A-77)."""

    url: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True


@frozen(kw_only=True)
class InlineSource:
    """Files written in the Dockerfile itself (heredocs): `(name, content)` in order; mode 0644."""

    files: tuple[tuple[str, bytes], ...]


# --- operations: the first input is the root they work on ---------------------------------------------------------


@frozen(kw_only=True)
class RunMount:
    """One `RUN --mount` (FEATURES A-56…A-61). `input` is the index of the vertex a bind or seed comes from, else -1."""

    type: str  # bind, cache, tmpfs, secret, ssh
    target: str
    source: str = ""
    input: int = -1
    readonly: bool = False
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""


@frozen(kw_only=True)
class Exec:
    """RUN. `argv` already includes the SHELL. `files` are heredoc scripts to put under /dev/pipes/, mode 0755."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()  # as the command sees it: ENV and ARG together, in order
    cwd: str = "/"
    user: str = ""
    network: str = "default"
    security: str = "sandbox"
    mounts: tuple[RunMount, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    platform: str = ""


@frozen(kw_only=True)
class CopySource:
    """Sources of one COPY or ADD: `paths` (patterns, relative to the input's root) within input number `input`."""

    input: int
    paths: tuple[str, ...]
    unpack: bool = False  # ADD: archives are recognised by content and unpacked


@frozen(kw_only=True)
class Copy:
    """COPY and ADD (FEATURES A-65…A-78). Inputs: 0 the root, then the sources. `dest` is absolute; a trailing `/` means directory."""

    sources: tuple[CopySource, ...]
    dest: str
    owner: str = ""  # --chown as written, "" is 0:0
    mode: str = ""  # --chmod as written
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@frozen(kw_only=True)
class MakeDirectory:
    """WORKDIR: the directory and missing parents, owned by `user`; no layer when it is already there."""

    path: str
    user: str = ""


Operation = (
    Scratch | ImageSource | LocalSource | HttpSource | GitSource | InlineSource | Exec | Copy | MakeDirectory
)
SOURCES = (Scratch, ImageSource, LocalSource, HttpSource, GitSource, InlineSource)


@frozen(kw_only=True)
class Vertex:
    """One operation and what it needs."""

    operation: Operation
    inputs: tuple[Vertex, ...] = ()
    label: str = field(
        default="", compare=False
    )  # for people, e.g. "[build 2/5] RUN make"; not part of the digest
    span: Span | None = field(default=None, compare=False)
    no_cache: bool = field(default=False, compare=False)  # --no-cache, --no-cache-filter
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        record = ("vertex.v1", operation_record(self.operation), [v.digest for v in self.inputs])
        object.__setattr__(self, "digest", digest_of_record(record))

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vertex) and self.digest == other.digest


def operation_record(operation: Any) -> Any:
    """A value as plain JSON types with its class name, so that keys can be hashed, stored and compared by field."""
    if operation is None or type(operation) in (str, int, bool):
        return operation  # nearly everything, in an environment of hundreds of variables
    if isinstance(operation, (tuple, list)):
        return [operation_record(item) for item in operation]
    if is_value(operation):
        record = {name: operation_record(content) for name, content in as_dict(operation).items()}
        return {"is": type(operation).__name__, **record}
    if isinstance(operation, bytes):
        return "sha256:" + hashlib.sha256(operation).hexdigest()
    return operation


def digest_of_record(record: Any) -> Digest:
    """The digest of one canonical record; the record carries a version tag."""
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Digest("sha256:" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())


# --- what lowering answers ----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Instruction:
    """One history entry of the image: how it was made, and the vertex whose layer it is (None: metadata only)."""

    created_by: str
    vertex: Vertex | None = None


@frozen(kw_only=True)
class StageGraph:
    """A lowered stage. `config` holds all but `diff_ids`, `history` and `created`, which are known after solving."""

    name: str
    index: int
    platform: Platform
    root: Vertex
    base: Vertex  # ImageSource or Scratch at the bottom
    base_config: ImageConfig | None
    instructions: tuple[
        Instruction, ...
    ]  # all since the bottom, including those of the stages this one is FROM
    config: ImageConfig
