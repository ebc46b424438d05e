"""A target as the flags `pipe build` would have been given, so that both mean the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pipeline.bake.definition import Target

_LISTS = {
    "annotations": "annotation", "attest": "attest", "cache-from": "cache_from", "cache-to": "cache_to",
    "entitlements": "allow", "no-cache-filter": "no_cache_filter", "output": "output", "platforms": "platform",
    "secret": "secret", "ssh": "ssh", "tags": "tag", "ulimits": "ulimit",
}  # fmt: skip
_MAPS = {"args": "build_arg", "labels": "label", "extra-hosts": "add_host"}
_TEXTS = {"network": "network", "shm-size": "shm_size", "target": "target"}


def flags_of(
    target: Target, given: Mapping[str, Any], contexts: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """The context and the flags. `given` are the command's own flags; `contexts` what its named contexts are now."""
    flags = dict(given)
    for name, flag in _LISTS.items():
        flags[flag] = (*target.get(name, ()), *given[flag])
    for name, flag in _MAPS.items():
        pairs = {key: value for key, value in (target.get(name) or {}).items() if value is not None}
        flags[flag] = (*(f"{key}={value}" for key, value in pairs.items()), *given[flag])
    for name, flag in _TEXTS.items():
        flags[flag] = target.get(name) or None
    flags["build_context"] = tuple(f"{name}={value}" for name, value in contexts.items())
    flags["no_cache"] = given["no_cache"] or truth(target.get("no-cache"))
    flags["pull"] = given["pull"] or truth(target.get("pull"))
    context = target.get("context") or "."
    flags["file"] = _dockerfile(context, target)
    return context, flags


def _dockerfile(context: str, target: Target) -> str | None:
    """Relative to the context, other than `-f`."""
    name = target.get("dockerfile")
    if name and not os.path.isabs(name) and os.path.isdir(context):
        return os.path.join(context, name)
    return name or None


def truth(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))
