"""Types of variables: `string`, `list(number)`, `object({…})`; values made to fit them, and read from the environment."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import Any

from pipeline.bake.hcl.evaluate import as_list, as_number, as_object, as_text, as_truth, kind_of, plain, same
from pipeline.bake.hcl.nodes import Call, Expression, HclError, Literal, Name, Object, Tuple
from registry_client.values import frozen
from runtime.errors import InvalidInput

_PLAIN = ("string", "number", "bool", "any")
_CONTAINERS = ("list", "set", "map")


@frozen
class Type:
    """`of` are the types within: one of a list, set or map, all of a tuple; `fields` those of an object."""

    kind: str
    of: tuple[Type, ...] = ()
    fields: tuple[tuple[str, Type], ...] = ()

    @property
    def is_plain(self) -> bool:
        return self.kind in _PLAIN


def parse_type(node: Expression, place: str) -> Type:
    """A type as it is written; HclError when it is none."""
    if isinstance(node, Name) and node.name in _PLAIN:
        return Type(node.name)
    if isinstance(node, Call) and len(node.arguments) == 1:
        (inner,) = node.arguments
        if node.name in _CONTAINERS:
            return Type(node.name, (parse_type(inner, place),))
        if node.name == "tuple" and isinstance(inner, Tuple):
            return Type("tuple", tuple(parse_type(each, place) for each in inner.items))
        if node.name == "object" and isinstance(inner, Object):
            fields = [
                (key.value, parse_type(each, place)) for key, each in inner.items if isinstance(key, Literal)
            ]
            return Type("object", fields=tuple((str(key), each) for key, each in fields))
    raise HclError(
        place,
        "not a valid type",
        "string, number, bool, any, list(…), set(…), map(…), tuple([…]), object({…})",
    )


def convert(value: Any, kind: Type) -> Any:
    """The value as the type wants it; InvalidInput when it does not fit."""
    if value is None or kind.kind == "any":
        return value
    match kind.kind:
        case "string":
            return as_text(value)
        case "number":
            return as_number(value)
        case "bool":
            return as_truth(value)
        case "map":
            return {key: convert(each, kind.of[0]) for key, each in as_object(value).items()}
        case "object":
            given = as_object(value)
            missing = [key for key, _ in kind.fields if key not in given]
            if missing:
                raise InvalidInput(f"attribute {missing[0]!r} is missing")
            return {key: convert(given[key], each) for key, each in kind.fields}
        case "tuple":
            items = as_list(value)
            if len(items) != len(kind.of):
                raise InvalidInput(f"want {len(kind.of)} items, not {len(items)}")
            return [convert(item, each) for item, each in zip(items, kind.of, strict=True)]
    items = [convert(item, kind.of[0]) for item in as_list(value)]
    return as_set(items) if kind.kind == "set" else items


def as_set(items: list[Any]) -> list[Any]:
    """Each once, and in the order sets have."""
    found: list[Any] = []
    for item in items:
        if not any(same(item, each) for each in found):
            found.append(item)
    if all(isinstance(each, str) for each in found):
        return sorted(found)
    if all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in found):
        return sorted(found)
    return found


def implied_type(value: Any) -> Type:
    """Of a variable that has only a default."""
    if isinstance(value, bool):
        return Type("bool")
    if isinstance(value, (int, float)):
        return Type("number")
    if value is None or isinstance(value, str):
        return Type("string")
    raise InvalidInput(f"{kind_of(value)} without a `type` cannot come from the environment")


def from_environment(text: str, kind: Type) -> Any:
    """The text of an environment variable: items are separated by commas, those of a map are `key:value`."""
    if kind.kind in ("string", "any"):
        return text
    if kind.kind == "bool":
        return _truth(text)
    if kind.kind == "number":
        return as_number(text)
    if kind.kind == "object" or not all(each.is_plain for each in kind.of):
        raise InvalidInput("its type cannot be read from the environment", hint="use NAME_JSON")
    try:
        items = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidInput(f"{text!r} is not CSV: {error}") from error
    if kind.kind == "map":
        pairs = [item.split(":") for item in items]
        if wrong := [item for item, pair in zip(items, pairs, strict=True) if len(pair) != 2]:
            raise InvalidInput(f"want key:value, not {wrong[0]!r}")
        return {key: from_environment(each, kind.of[0]) for key, each in pairs}
    kinds = kind.of if kind.kind == "tuple" else kind.of * len(items)
    if len(kinds) != len(items):
        raise InvalidInput(f"want {len(kinds)} items, not {len(items)}")
    found = [from_environment(item, each) for item, each in zip(items, kinds, strict=True)]
    return as_set(found) if kind.kind == "set" else found


def from_json(text: str, kind: Type) -> Any:
    """The text of NAME_JSON."""
    try:
        return convert(_plain_numbers(json.loads(text)), kind)
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from error


def _truth(text: str) -> bool:
    from builder.request import truth

    found = truth(text)
    if found is None:
        raise InvalidInput(f"failed to parse {text!r} as bool")
    return found


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain_numbers(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain_numbers(each) for key, each in value.items()}
    return plain(value) if isinstance(value, float) else value
