"""What a stage is a function of: the record its result is cached under. Pure but for reading the checked-out files."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from pipeline.config.container import ContainerKeys, ServiceSpec
from pipeline.results import Key, make_key
from pipeline.spec import StageSpec

# Different in every run: in a key only when the script asks for them.
RUN_VARIABLES = ("PIPE_RUN", "PIPE_COMMIT", "PIPE_BRANCH", "PIPE_ATTEMPT", "PIPE_HOOK")
_FIELDS_NOT_IN_KEY = frozenset(("stop_grace_period", "pull_policy", "logging", "labels"))


def stage_key(
    stage: StageSpec,
    *,
    images: Mapping[str, str],
    env: Mapping[str, str],
    inputs: Mapping[str, str],
    checkout: str = "",
) -> Key | None:
    """The key, or None for a stage that is not a function of what we know (it sees the host)."""
    if _sees_the_host(stage.container) or any(
        _sees_the_host(service.container) for service in stage.services
    ):
        return None
    text = "\n".join((stage.before.text, stage.run.text, stage.after.text))
    kept = {name: value for name, value in env.items() if name not in RUN_VARIABLES or _mentions(text, name)}
    return make_key(
        {
            "image": images[stage.container.image],
            "before": stage.before.text,
            "script": stage.run.text,
            "after": stage.after.text,
            "shell": stage.shell,
            "environment": kept,
            "container": _container(stage.container),
            "services": {service.name: _service(service, images) for service in stage.services},
            "secrets": [[use.name, use.target, use.env] for use in stage.secrets],
            "inputs": dict(inputs),
            "work tree": checkout,
            "keeps": [stage.junit, _plain(stage.artifacts)],
        }
    )


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _sees_the_host(keys: ContainerKeys) -> bool:
    return (
        any(mount.type == "bind" for mount in keys.volumes)
        or keys.privileged
        or bool(keys.devices)
        or keys.network_mode == "host"
        or keys.pid_mode == "host"
        or keys.ipc_mode == "host"
    )


def _plain(record: Any) -> dict[str, Any]:
    """A value and the values in it as dictionaries."""
    from dataclasses import asdict  # and with it `inspect`: for stages only

    return asdict(record)


def _container(keys: ContainerKeys) -> dict[str, Any]:
    record = _plain(keys)
    record.pop("env"), record.pop("env_file"), record.pop("image")
    default = _plain(ContainerKeys())
    return {
        name: value
        for name, value in record.items()
        if value != default[name] and name not in _FIELDS_NOT_IN_KEY
    }


def _service(service: ServiceSpec, images: Mapping[str, str]) -> dict[str, Any]:
    return {
        "image": images[service.container.image],
        "environment": [list(pair) for pair in service.container.env],
        "container": _container(service.container),
        "healthcheck": _plain(service.healthcheck) if service.healthcheck else None,
        "depends_on": [[need.service, need.condition] for need in service.depends_on],
    }


def tree_digest(root: str) -> str:
    """Names, kinds, permissions and contents of a work tree without `.git`; times do not count."""
    hasher = hashlib.sha256()
    for relative, entry in _walk(root, ""):
        info = entry.stat(follow_symlinks=False)
        hasher.update(
            f"{relative}\0{stat.S_IFMT(info.st_mode) | (info.st_mode & 0o111):o}\0".encode(
                "utf-8", "surrogateescape"
            )
        )
        if stat.S_ISLNK(info.st_mode):
            hasher.update(os.fsencode(os.readlink(entry.path)))
        elif stat.S_ISREG(info.st_mode):
            with open(entry.path, "rb") as file:
                hasher.update(hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()


def _walk(directory: str, prefix: str) -> list[tuple[str, os.DirEntry[str]]]:
    found: list[tuple[str, os.DirEntry[str]]] = []
    with os.scandir(directory) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if not prefix and entry.name == ".git":
            continue
        found.append((prefix + entry.name, entry))
        if entry.is_dir(follow_symlinks=False):
            found.extend(_walk(entry.path, f"{prefix}{entry.name}/"))
    return found
