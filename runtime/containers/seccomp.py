"""Which compiled seccomp program a container gets; compiled once per store and set of capabilities."""

from __future__ import annotations

import os
from typing import Any

from runtime.containers.spec import ContainerSpec
from runtime.errors import InvalidInput
from runtime.sandbox import seccomp
from runtime.sandbox.capabilities import mask
from runtime.sandbox.seccomp import program
from runtime.sandbox_errors import translated


def seccomp_program(root: str, spec: ContainerSpec, capabilities: list[str]) -> str:
    """The path of the program, "" for none: `--privileged` or seccomp=unconfined."""
    if spec.privileged or spec.seccomp == "unconfined":
        return ""
    cache = os.path.join(root, "seccomp")
    if spec.seccomp == "default":
        return _default(cache, capabilities)
    with translated():
        return program(cache, capabilities, _read(spec.seccomp))


def _default(cache: str, capabilities: list[str]) -> str:
    """The default profile by a short name, so that a start need not read and hash it to know the program's."""
    status = os.stat(seccomp.__file__)
    name = f"default.{mask(capabilities):x}.{status.st_mtime_ns}.{os.uname().release}"
    short = os.path.join(cache, name)
    if os.path.exists(short):
        return short
    with translated():
        path = program(cache, capabilities)
    aside = f"{short}.{os.getpid()}"
    os.symlink(os.path.basename(path), aside)
    os.replace(aside, short)
    return short


def _read(path: str) -> dict[str, Any]:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            profile: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"seccomp profile {path} cannot be read: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise InvalidInput(f"{path} is not a seccomp profile: it has no defaultAction")
    return profile
