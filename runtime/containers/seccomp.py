"""Which compiled seccomp program a container gets; compiled once per store and set of capabilities."""

from __future__ import annotations

import os
from typing import Any

from runtime.containers.spec import ContainerSpec
from runtime.errors import InvalidInput
from runtime.sandbox.seccomp import program
from runtime.sandbox_errors import translated


def seccomp_program(root: str, spec: ContainerSpec, capabilities: list[str]) -> str:
    """The path of the program, "" for none: `--privileged` or seccomp=unconfined."""
    if spec.privileged or spec.seccomp == "unconfined":
        return ""
    profile = None if spec.seccomp == "default" else _read(spec.seccomp)
    with translated():
        return program(os.path.join(root, "seccomp"), capabilities, profile)


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
