"""Devices of the host that a container gets, as OCI wants them: read from the nodes themselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from runtime.containers.spec import ContainerSpec
from runtime.errors import InvalidInput, NotFound

_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
# Every container has its own of these.
_OWN = frozenset(
    ("pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "stdout", "stderr", "core", ".udev")
)


def devices_of(spec: ContainerSpec) -> tuple[dict[str, Any], ...]:
    """`--device`, or with `--privileged` all there are."""
    found: dict[str, dict[str, Any]] = {}
    if spec.privileged:
        found |= {device["path"]: device for device in _below("/dev", "/dev", "rwm")}
    for source, target, access in spec.devices:
        found |= {device["path"]: device for device in _device(source, target, access)}
    return tuple(found.values())


def _device(source: str, target: str, access: str) -> Iterator[dict[str, Any]]:
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise NotFound(f"device {source} is not there") from error
    if stat.S_ISDIR(mode):
        yield from _below(source, target, access)
    elif stat.S_IFMT(mode) in _KINDS:
        yield _node(source, target, access)
    else:
        raise InvalidInput(f"{source} is not a device", hint="mount it with -v")


def _below(source: str, target: str, access: str) -> Iterator[dict[str, Any]]:
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if source == "/dev" and entry.name in _OWN:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, f"{target}/{entry.name}", access)
            elif stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) in _KINDS:
                yield _node(entry.path, f"{target}/{entry.name}", access)


def _node(source: str, target: str, access: str) -> dict[str, Any]:
    status = os.stat(source)
    return {
        "path": target,
        "type": _KINDS[stat.S_IFMT(status.st_mode)],
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "access": access,
    }
