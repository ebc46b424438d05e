"""Which bake files there are, and the JSON form."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.bake.definition import Definition, read_target
from runtime.errors import InvalidInput, NotFound, Unsupported, did_you_mean

# In this order, as buildx looks; each that is there counts.
DEFAULT_FILES = (
    "compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml", "docker-bake.json", "docker-bake.hcl",
    "docker-bake.override.json", "docker-bake.override.hcl",
)  # fmt: skip
_LIMIT = 16 << 20
_SECTIONS = ("target", "group", "variable")


def load_definition(names: Sequence[str], env: Mapping[str, str]) -> Definition:
    """What the files named, or those there are, say together."""
    chosen = tuple(names) or tuple(name for name in DEFAULT_FILES if os.path.isfile(name))
    if not chosen:
        raise NotFound("no bake file here", hint=f"name one with -f, or write {DEFAULT_FILES[4]}")
    found = Definition()
    for name in chosen:
        found = found.merged(_load(name, env))
    return found


def _load(name: str, env: Mapping[str, str]) -> Definition:
    if "://" in name:
        raise Unsupported(f"bake file {name}: files from elsewhere are not read", hint="fetch it first")
    if name.endswith(".hcl"):
        raise Unsupported(
            f"bake file {name}: HCL is not read", hint="`docker buildx bake --print` gives it as JSON"
        )
    text = _read(name)
    if name.endswith((".yaml", ".yml")):
        from pipeline.bake.compose import parse_compose

        return parse_compose(text, name, os.path.dirname(name), env)
    return parse_json(text, name)


def _read(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_LIMIT + 1)
    except OSError as error:
        raise NotFound(f"cannot read {name}: {error.strerror}") from error
    if len(data) > _LIMIT:
        raise InvalidInput(f"{name} is larger than {_LIMIT >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8") from error


def parse_json(text: str, name: str) -> Definition:
    """`{"variable": …, "group": …, "target": …}`; each may also be a list of such objects, as in HCL's JSON."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidInput(f"{name} is not an object")
    for key in record:
        if key == "function":
            raise Unsupported(f"{name}: functions are expressions of HCL", hint="write out what they give")
        if key not in _SECTIONS:
            raise InvalidInput(f"{name}: unknown key {key!r}", hint=did_you_mean(key, _SECTIONS))
    section = {key: _section(record.get(key), f"{name}: {key}") for key in _SECTIONS}
    return Definition(
        {each: read_target(f"{name}: target {each}", value) for each, value in section["target"].items()},
        {each: _members(f"{name}: group {each}", value) for each, value in section["group"].items()},
        {each: _default(f"{name}: variable {each}", value) for each, value in section["variable"].items()},
    )


def _section(value: Any, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in value if isinstance(value, list) else [value or {}]:
        if not isinstance(part, dict):
            raise InvalidInput(f"{where} is not an object")
        found |= part
    return found


def _members(where: str, value: Any) -> tuple[str, ...]:
    members = value.get("targets") if isinstance(value, dict) else None
    if not isinstance(members, list) or not all(isinstance(each, str) for each in members):
        raise InvalidInput(f"{where} has no list of `targets`")
    return tuple(members)


def _default(where: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is not an object")
    default = value.get("default", "")
    if not isinstance(default, (str, int, float, bool, type(None))):
        raise Unsupported(f"{where}: only strings, numbers and truths can be variables")
    return default
