"""Expressions and bodies of HCL as values (hclsyntax/spec.md). `place` is where it was written, as `file:line`."""

from __future__ import annotations

from registry_client.values import field, frozen
from runtime.errors import InvalidInput


@frozen
class Literal:
    value: bool | int | float | str | None


@frozen
class Template:
    """Text with values in it. A single part that is no text is the value itself, whatever it is."""

    parts: tuple[Expression, ...]
    place: str


@frozen
class Name:
    name: str
    place: str


@frozen
class Attribute:
    of: Expression
    name: str
    place: str


@frozen
class Index:
    of: Expression
    key: Expression
    place: str


@frozen
class Splat:
    """`of[*].a` and `of.*.a`: `each` is asked of every item, which is the name `*` there."""

    of: Expression
    each: Expression


@frozen
class Call:
    name: str
    arguments: tuple[Expression, ...]
    spread: bool  # `f(list...)`
    place: str


@frozen
class Operation:
    """A unary one has no `right`."""

    operator: str
    left: Expression
    right: Expression | None
    place: str


@frozen
class Condition:
    test: Expression
    then: Expression
    otherwise: Expression
    place: str


@frozen
class Tuple:
    items: tuple[Expression, ...]


@frozen
class Object:
    items: tuple[tuple[Expression, Expression], ...]
    place: str


@frozen
class For:
    """`[for key, name in of: value if test]`; with `to` an object, `grouped` its values are lists. As text it joins them."""

    key: str
    name: str
    of: Expression
    value: Expression
    to: Expression | None
    test: Expression | None
    grouped: bool
    as_text: bool
    place: str


Expression = (
    Literal
    | Template
    | Name
    | Attribute
    | Index
    | Splat
    | Call
    | Operation
    | Condition
    | Tuple
    | Object
    | For
)


@frozen
class Block:
    """`kind "label" { … }`"""

    kind: str
    labels: tuple[str, ...]
    body: Body
    place: str


@frozen
class Body:
    attributes: dict[str, Expression] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()


class HclError(InvalidInput):
    """A mistake in a file: where, and what."""

    def __init__(self, place: str, message: str, hint: str = "") -> None:
        super().__init__(f"{place}: {message}", hint=hint)
