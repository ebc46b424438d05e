"""Cache keys: what a step is, and the very root and files it worked on (FEATURES B-3…B-6). Pure.

A key is the digest of one record of named fields; the record is kept, so that two of them can be compared. The root
enters by its chain id, which is its content: a step above a stage that was rebuilt to the same bytes still hits. The
*shape* is the same without root and content: if no record has a step's shape, no record can have its key, and the step
may start before its key is known.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from builder.content import Content
from builder.graph import Copy, Exec, MakeDirectory, RunMount, operation_record
from registry_client.values import frozen

EXEC_VERSION = "exec.v1"
COPY_VERSION = "copy.v2"
DIRECTORY_VERSION = "directory.v1"
# Set by the builder for everyone behind a proxy; no reason to build again.
PROXY_NAMES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


@frozen
class Shape:
    """A step without its root and files: the named fields, and their digest."""

    kind: str
    fields: dict[str, Any]
    digest: str

    @classmethod
    def of(cls, kind: str, fields: dict[str, Any]) -> Shape:
        return cls(kind, fields, digest_of_fields({"kind": kind, **fields}))


def cache_key(shape: Shape, chain: str, content: Content) -> str:
    """The key: shape, root and content."""
    return digest_of_fields({"shape": shape.digest, "root": chain, "content": content.digest})


def digest_of_fields(record: dict[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


# --- shapes -------------------------------------------------------------------------------------------------------


@frozen
class Surroundings:
    """What the build adds to every RUN and that changes its result. Addresses of extra hosts do not (B-3)."""

    hostname: str = ""
    host_names: tuple[str, ...] = ()
    rlimits: tuple[str, ...] = ()
    cgroup_parent: str = ""
    rewrite_epoch: int | None = None  # layer times are set to it
    epoch: int | None = None  # the time of directories that COPY and WORKDIR make

    def epoch_fields(self) -> dict[str, Any]:
        """What of the times is part of the key of a step we carry out ourselves.

        A layer that was made under another time, or under none, is not the one this build would make; that the same
        inputs and time give the same digest must not depend on what the cache holds.
        """
        own = {} if self.epoch is None else {"epoch": self.epoch}
        return {"rewrite epoch": self.rewrite_epoch, **own}


def exec_shape(operation: Exec, surroundings: Surroundings) -> Shape:
    """RUN. ENV and ARG count as a set; proxies, secrets' values and cache mounts' contents do not count."""
    return Shape.of(
        EXEC_VERSION,
        {
            "args": list(operation.argv),
            "env": sorted(f"{name}={value}" for name, value in operation.env if name not in PROXY_NAMES),
            "cwd": operation.cwd,
            "user": operation.user,
            "network": operation.network,
            "security": operation.security,
            "platform": operation.platform,
            "mounts": [_mount_fields(mount) for mount in operation.mounts],
            "files": [[name, hashlib.sha256(data).hexdigest()] for name, data in operation.files],
            "hostname": surroundings.hostname,
            "hosts": sorted(surroundings.host_names),
            "rlimits": sorted(surroundings.rlimits),
            "cgroup parent": surroundings.cgroup_parent,
            "rewrite epoch": surroundings.rewrite_epoch,
        },
    )


def _mount_fields(mount: RunMount) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": mount.type, "target": mount.target, "readonly": mount.readonly}
    if mount.type in ("secret", "ssh"):
        fields |= {"id": mount.id, "mode": mount.mode, "uid": mount.uid, "gid": mount.gid, "env": mount.env}
        if mount.required:  # or a result without the secret would do
            fields["required"] = True
    if mount.type == "cache" and (mount.uid or mount.gid or mount.mode not in (None, 0o755)):
        fields |= {"mode": mount.mode, "uid": mount.uid, "gid": mount.gid}
    if mount.type == "tmpfs":
        fields["size"] = mount.size
    return fields


def copy_shape(operation: Copy, surroundings: Surroundings) -> Shape:
    """COPY and ADD: where to and how. What is copied is content; the patterns only say how to find it."""
    return Shape.of(
        COPY_VERSION,
        {
            "dest": operation.dest,
            "owner": operation.owner,
            "mode": operation.mode,
            "link": operation.link,
            "parents": operation.parents,
            "unpack": [source.unpack for source in operation.sources],
            **({"made": "umask"} if operation.mode else {}),  # directories once had the mode itself
            **surroundings.epoch_fields(),
        },
    )


def directory_shape(operation: MakeDirectory, surroundings: Surroundings) -> Shape:
    return Shape.of(
        DIRECTORY_VERSION,
        {**operation_record(operation), **surroundings.epoch_fields()},
    )
