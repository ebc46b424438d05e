"""Cache keys: what a step is, and the very root and files it worked on (FEATURES B-3…B-6). Pure.

A key is the digest of one record of named fields; the record is kept, so that two of them can be compared. The root
enters by its chain id, which is its content: a step above a stage that was rebuilt to the same bytes still hits. The
*shape* is the same without root and content: if no record has a step's shape, no record can have its key, and the step
may start before its key is known.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from builder.graph import Copy, Exec, MakeDirectory, RunMount, operation_record
from builder.operations.copying import Digests, read_digest
from builder.operations.selection import Group, Item
from registry_client.values import frozen
from runtime.cancel import Cancel

EXEC_VERSION = "exec.v1"
COPY_VERSION = "copy.v1"
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


@frozen
class Content:
    """The content a step takes in: one digest over all, and each file's line for `pipe why`."""

    digest: str
    lines: tuple[str, ...] = ()


EMPTY_CONTENT = Content("")


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
            **surroundings.epoch_fields(),
        },
    )


def directory_shape(operation: MakeDirectory, surroundings: Surroundings) -> Shape:
    return Shape.of(
        DIRECTORY_VERSION,
        {**operation_record(operation), **surroundings.epoch_fields()},
    )


# --- content ------------------------------------------------------------------------------------------------------


def content_of(
    groups: Sequence[Group],
    digests: Digests,
    *,
    keep_owner: bool,
    read: dict[tuple[int, int], bytes] | None = None,
    newest_ns: int | None = None,
    cancel: Cancel | None = None,
) -> Content:
    """The content of a selection. `read` holds digests of files that were just copied.

    With `newest_ns`, which later times are set to, an earlier time counts: the layer will carry it.
    """
    lines: list[str] = []
    for group in groups:
        # A group's own name is part of what COPY makes of a single file, not of a directory's contents.
        lines.append("dir" if group.is_directory else "file")
        for item in group.items:
            digest = ""
            status = item.status
            if stat.S_ISREG(status.st_mode):
                known = read.get((status.st_dev, status.st_ino)) if read is not None else None
                digest = (known or read_digest(item, digests, cancel)).hex()
            lines.append(_line(item, keep_owner, digest, newest_ns))
    return content_of_lines(lines)


def content_of_lines(lines: Iterable[str]) -> Content:
    kept = tuple(lines)
    text = "\n".join(kept).encode("utf-8", "surrogateescape")
    return Content("sha256:" + hashlib.sha256(text).hexdigest(), kept)


def _line(item: Item, keep_owner: bool, digest: str, newest_ns: int | None) -> str:
    """Name, mode, owner, size, link target, device: all but the times (B-4), unless they are to be reproduced."""
    status = item.status
    mode = status.st_mode
    # What a directory's size is depends on the file system.
    size = status.st_size if stat.S_ISREG(mode) else 0
    owner = f"{status.st_uid}:{status.st_gid}" if keep_owner else "0:0"
    more = ""
    if stat.S_ISLNK(mode):
        more = os.readlink(item.path)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        more = str(status.st_rdev)
    if newest_ns is not None and status.st_mtime_ns < newest_ns:
        more += f"@{status.st_mtime_ns}"
    return f"{digest}\0{mode:o}\0{owner}\0{size}\0{more}\0{item.name}"
