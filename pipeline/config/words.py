"""Shapes of Compose's everyday values: commands, variables, pairs. Used by every table."""

from __future__ import annotations

import re
import shlex

from pipeline.config.document import Mapping, Node, Scalar, Sequence, kind_of
from pipeline.config.scalars import Text, scalar
from pipeline.config.shapes import Json, ListOf, Reader, Shape
from runtime.errors import InvalidInput
from runtime.spans import Span

_ENV_NAME = r"[^=\0\s]+"


class Command(Shape[tuple[str, ...]]):
    """A list, or a string split by the shell's quoting rules (no shell runs it)."""

    def parse(self, node: Node, reader: Reader) -> tuple[str, ...]:
        if isinstance(node, Sequence):
            return ListOf(Text()).parse(node, reader)
        text = reader.text(scalar(node, self))
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            hint = 'a list needs no quoting: `[sh, -c, "echo it\'s fine"]`'
            raise InvalidInput(
                f"cannot split {text!r} into words: {str(error).lower()}", node.span, hint=hint
            ) from error

    def schema(self) -> Json:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": Text().schema()}, {"type": "null"}]}

    def expects(self) -> str:
        return "a command (a text or a list)"


def _variables_schema() -> Json:
    """A mapping, or a list of `NAME=VALUE`."""
    value = {"type": ["string", "number", "boolean", "null"]}
    return {
        "anyOf": [
            {"type": "object", "additionalProperties": value},
            {"type": "array", "items": {"type": "string"}},
            {"type": "null"},
        ]
    }


class Environment(Shape[tuple[tuple[str, str | None], ...]]):
    """`{NAME: value}` or `[NAME=value, NAME]`; without a value it is taken from outside where it is set."""

    def parse(self, node: Node, reader: Reader) -> tuple[tuple[str, str | None], ...]:
        if isinstance(node, Mapping):
            return tuple(
                (self._name(entry.key, entry.key_span), self._value(entry.value, reader)) for entry in node
            )
        if isinstance(node, Sequence):
            found: dict[str, str | None] = {}
            for item in node.items:
                name, equals, value = reader.text(scalar(item, Text())).partition("=")
                found[self._name(name, item.span)] = value if equals else None
            return tuple(found.items())
        if isinstance(node, Scalar) and node.null:
            return ()
        raise InvalidInput(f"expected a mapping or a list of `NAME=value`, not {kind_of(node)}", node.span)

    def _name(self, name: str, span: Span) -> str:
        if not re.fullmatch(_ENV_NAME, name):
            raise InvalidInput(f"{name!r} is not a variable name", span)
        return name

    def _value(self, node: Node, reader: Reader) -> str | None:
        return None if isinstance(node, Scalar) and node.null else Text().parse(node, reader)

    def schema(self) -> Json:
        return _variables_schema()

    def expects(self) -> str:
        return "variables"


class Pairs(Shape[tuple[tuple[str, str], ...]]):
    """Like Environment, but a missing value is the empty text; `separators` for the list form, the first found counts."""

    def __init__(self, separators: str = "=") -> None:
        self.separators = separators

    def parse(self, node: Node, reader: Reader) -> tuple[tuple[str, str], ...]:
        if isinstance(node, Mapping):
            return tuple((entry.key, Text(null=True).parse(entry.value, reader)) for entry in node)
        return tuple(self._split(text) for text in ListOf(Text()).parse(node, reader))

    def _split(self, text: str) -> tuple[str, str]:
        separator = next((mark for mark in self.separators if mark in text), self.separators[0])
        key, _, value = text.partition(separator)
        return key, value

    def schema(self) -> Json:
        return _variables_schema()

    def expects(self) -> str:
        return "a mapping or a list"
