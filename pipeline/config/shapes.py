"""The words in which a table of keys is written. A shape parses a node to a value and prints itself as JSON Schema, so the
parser, `pipe schema` and the reference page cannot disagree.

A shape raises InvalidInput for what it cannot read. Collections catch that per child, note it in the `Reader` and go on, so
`pipe lint` shows all mistakes at once; whoever reads a whole file asks the reader for its problems at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from typing import Any, Generic, TypeVar

from pipeline.config.document import Mapping, Node, Scalar, Sequence, kind_of
from pipeline.config.interpolate import Lookup, Unset, expand
from registry_client.values import field, frozen
from runtime.errors import InvalidInput, did_you_mean
from runtime.spans import Span

T = TypeVar("T")
Json = dict[str, Any]


class Reader:
    """What is collected while one file is read."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.problems: list[InvalidInput] = []
        self.warnings: list[tuple[str, Span]] = []
        self.unset: list[Unset] = []

    def text(self, node: Scalar) -> str:
        """The scalar's text with variables expanded."""
        return expand(node.text, self.lookup, node.span, self.unset)

    def attempt(self, shape: Shape[T], node: Node) -> T | None:
        """The value, or None after noting the problem."""
        try:
            return shape.parse(node, self)
        except InvalidInput as problem:
            self.problems.append(problem)
            return None


class Shape(Generic[T]):
    def parse(self, node: Node, reader: Reader) -> T:
        raise InvalidInput(f"expected {self.expects()}, not {kind_of(node)}", node.span)

    def schema(self) -> Json:
        return {}

    def expects(self) -> str:
        return "a value"


@frozen
class ListOf(Shape[tuple[T, ...]]):
    """`single`: one item may stand there without the list."""

    item: Shape[T]
    single: bool = False

    def parse(self, node: Node, reader: Reader) -> tuple[T, ...]:
        if isinstance(node, Sequence):
            found = [reader.attempt(self.item, child) for child in node.items]
            return tuple(value for value in found if value is not None)
        if isinstance(node, Scalar) and node.null and not self.single:
            return ()
        if self.single:
            return (self.item.parse(node, reader),)
        raise InvalidInput(
            f"expected a list, not {kind_of(node)}", node.span, hint="start each item with `- `"
        )

    def schema(self) -> Json:
        many: Json = {"type": "array", "items": self.item.schema()}
        return {"anyOf": [self.item.schema(), many]} if self.single else {"anyOf": [many, {"type": "null"}]}

    def expects(self) -> str:
        return "a list"


@frozen
class MapOf(Shape[tuple[T, ...]]):
    """A mapping from names to things that are made by `make(name, node)`; the order of the file is kept."""

    make: Callable[[str, Span], Shape[T]]
    sample: Shape[T]
    key_pattern: str = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
    what: str = "a name"

    def parse(self, node: Node, reader: Reader) -> tuple[T, ...]:
        if isinstance(node, Scalar) and node.null:
            return ()
        if not isinstance(node, Mapping):
            raise InvalidInput(f"expected {self.expects()}, not {kind_of(node)}", node.span)
        found: list[T] = []
        for entry in node:
            if entry.key.startswith("x-"):
                continue
            if not re.fullmatch(self.key_pattern, entry.key):
                hint = "letters, digits, `_`, `.` and `-`, at most 63"
                reader.problems.append(
                    InvalidInput(f"{entry.key!r} is not {self.what}", entry.key_span, hint=hint)
                )
                continue
            value = reader.attempt(self.make(entry.key, entry.key_span), entry.value)
            if value is not None:
                found.append(value)
        return tuple(found)

    def schema(self) -> Json:
        patterns = {f"^(?!x-){self.key_pattern}$": self.sample.schema(), "^x-": {}}
        return {"type": ["object", "null"], "patternProperties": patterns, "additionalProperties": False}

    def expects(self) -> str:
        return "a mapping"


@frozen
class Either(Shape[T]):
    """The first shape for scalars and lists, the second for mappings."""

    simple: Shape[T]
    mapping: Shape[T]

    def parse(self, node: Node, reader: Reader) -> T:
        return (self.mapping if isinstance(node, Mapping) else self.simple).parse(node, reader)

    def schema(self) -> Json:
        return {"anyOf": [self.simple.schema(), self.mapping.schema()]}

    def expects(self) -> str:
        return f"{self.simple.expects()} or a mapping"


@frozen
class Convert(Shape[T]):
    """Another shape's value made into something else; `by` raises ValueError or InvalidInput."""

    inner: Shape[Any]
    by: Callable[[Any], T]

    def parse(self, node: Node, reader: Reader) -> T:
        value = self.inner.parse(node, reader)
        try:
            return self.by(value)
        except ValueError as error:
            raise InvalidInput(str(error), node.span) from error

    def schema(self) -> Json:
        return self.inner.schema()

    def expects(self) -> str:
        return self.inner.expects()


@frozen
class Key:
    """One key of a record: its shape, the attribute it fills (the key itself by default), and a line for the reference.

    `part` names the attribute of the record that holds the value, where a record is composed of others.
    """

    shape: Shape[Any]
    help: str
    attribute: str = ""
    required: bool = False
    part: str = ""


@frozen
class Record(Shape[T]):
    """A mapping with known keys that becomes a frozen dataclass. `given` are attributes that come from outside (name, span)."""

    build: Callable[..., T]
    keys: MappingOf[str, Key]
    given: tuple[tuple[str, object], ...] = ()
    parts: MappingOf[str, Callable[..., object]] = field(default_factory=dict)
    what: str = ""  # "a stage": for messages
    check: Callable[[T, Mapping, Reader], None] | None = None
    spanned: bool = False
    null: bool = False  # `key:` alone is the record with all defaults

    def parse(self, node: Node, reader: Reader) -> T:
        if self.null and isinstance(node, Scalar) and node.null:
            node = Mapping((), node.span)
        if not isinstance(node, Mapping):
            raise InvalidInput(f"expected {self.expects()}, not {kind_of(node)}", node.span)
        before = len(reader.problems)
        groups: dict[str, dict[str, object]] = {part: {} for part in ("", *self.parts)}
        for entry in node:
            if entry.key.startswith("x-"):
                continue
            key = self.keys.get(entry.key)
            if key is None:
                reader.problems.append(self._unknown(entry.key, entry.key_span))
                continue
            value = reader.attempt(key.shape, entry.value)
            if value is not None:
                groups[key.part][key.attribute or entry.key.replace("-", "_")] = value
        missing = [name for name, key in self.keys.items() if key.required and node.get(name) is None]
        if missing:
            what = self.what or "this mapping"
            raise InvalidInput(f"{what} needs the key `{missing[0]}`", node.span)
        return self._finish(node, groups, reader, before)

    def _finish(self, node: Mapping, groups: dict[str, dict[str, object]], reader: Reader, before: int) -> T:
        values = groups.pop("")
        values.update((part, self.parts[part](**group)) for part, group in groups.items())
        if self.spanned:
            values["span"] = node.span
        values.update(self.given)
        try:
            value = self.build(**values)
        except TypeError as error:
            # A required key was there but wrong, and its problem is noted already.
            if len(reader.problems) == before:
                raise
            raise reader.problems.pop() from error
        if self.check is not None and len(reader.problems) == before:
            self.check(value, node, reader)
        return value

    def _unknown(self, key: str, span: Span) -> InvalidInput:
        hint = did_you_mean(key, self.keys)
        if not hint:
            hint = (
                "known keys: "
                + ", ".join(f"`{name}`" for name in list(self.keys)[:14])
                + ("…" if len(self.keys) > 14 else "")
            )
        return InvalidInput(
            f"unknown key `{key}`" + (f" in {self.what}" if self.what else ""), span, hint=hint
        )

    def schema(self) -> Json:
        properties = {
            name: {**key.shape.schema(), "description": key.help} for name, key in self.keys.items()
        }
        schema: Json = {
            "type": ["object", "null"] if self.null else "object",
            "properties": properties,
            "patternProperties": {"^x-": {}},
            "additionalProperties": False,
        }
        required = [name for name, key in self.keys.items() if key.required]
        return {**schema, "required": required} if required else schema

    def expects(self) -> str:
        return f"a mapping ({self.what})" if self.what else "a mapping"
