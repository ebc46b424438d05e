"""Which bake files there are, and the JSON form of HCL."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.bake.definition import Definition
from pipeline.bake.hcl.nodes import Block, Body, Expression, Literal, Object, Tuple
from runtime.errors import InvalidInput, NotFound, Unsupported

# In this order, as buildx looks; each that is there counts.
DEFAULT_FILES = (
    "compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml", "docker-bake.json", "docker-bake.hcl",
    "docker-bake.override.json", "docker-bake.override.hcl",
)  # fmt: skip
_LIMIT = 16 << 20
SECTIONS = ("target", "group", "variable", "function")


def load_definition(names: Sequence[str], env: Mapping[str, str]) -> Definition:
    """What the files named, or those there are, say together. Compose files come first, whatever their place, as in buildx."""
    chosen = tuple(names) or tuple(name for name in DEFAULT_FILES if os.path.isfile(name))
    if not chosen:
        raise NotFound("no bake file here", hint=f"name one with -f, or write {DEFAULT_FILES[4]}")
    found, bodies = Definition(), []
    for name in chosen:
        if "://" in name:
            raise Unsupported(f"bake file {name}: files from elsewhere are not read", hint="fetch it first")
        text = _read(name)
        if name.endswith((".yaml", ".yml")):
            from pipeline.bake.compose import parse_compose

            found = found.merged(parse_compose(text, name, os.path.dirname(name), env))
        elif name.endswith(".hcl") or (name == "-" and not text.lstrip().startswith("{")):
            from pipeline.bake.hcl.parser import parse_hcl

            bodies.append(parse_hcl(text, name))
        else:
            bodies.append(parse_json(text, name))
    if bodies:
        from pipeline.bake.evaluated import evaluated

        found = found.merged(evaluated(bodies, env))
    return found


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


def parse_json(text: str, name: str) -> Body:
    """`{"variable": …, "group": …, "target": …}` as HCL's JSON: strings are templates, other keys variables that are set."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidInput(f"{name} is not an object")
    attributes: dict[str, Expression] = {}
    blocks: list[Block] = []
    for key, value in record.items():
        if key not in SECTIONS:
            attributes[key] = _expression(value, f"{name}: {key}")
            continue
        for label, body in _bodies(value, f"{name}: {key}"):
            where = f"{name}: {key} {label}"
            blocks += [Block(key, (label,), _body(each, where), where) for each in _parts(body, where)]
    return Body(attributes, tuple(blocks))


def _bodies(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Labels with what they stand for; several may stand in a list."""
    for part in _parts(value, where):
        yield from part.items()


def _parts(value: Any, where: str) -> list[dict[str, Any]]:
    parts = value if isinstance(value, list) else [{} if value is None else value]
    if not all(isinstance(part, dict) for part in parts):
        raise InvalidInput(f"{where} is not an object")
    return parts


def _body(record: dict[str, Any], where: str) -> Body:
    attributes: dict[str, Expression] = {}
    blocks: list[Block] = []
    for key, value in record.items():
        if key == "validation":
            blocks += [Block(key, (), _body(each, where), where) for each in _parts(value, where)]
        else:
            attributes[key] = _expression(value, f"{where}.{key}")
    return Body(attributes, tuple(blocks))


def _expression(value: Any, where: str) -> Expression:
    if isinstance(value, str):
        from pipeline.bake.hcl.parser import parse_template

        return parse_template(value, where) if "${" in value or "%{" in value else Literal(value)
    if isinstance(value, list):
        return Tuple(tuple(_expression(each, f"{where}[{n}]") for n, each in enumerate(value)))
    if isinstance(value, dict):
        pairs = [
            (_expression(key, where), _expression(each, f"{where}.{key}")) for key, each in value.items()
        ]
        return Object(tuple(pairs), where)
    return Literal(value)
