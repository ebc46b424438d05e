"""Shapes of `when:`, `if:` and `needs:`: whether and after what something runs."""

from __future__ import annotations

from typing import Any

from pipeline.conditions import ALWAYS, Clause, Condition, Expression, parse_expression
from pipeline.config.container import NOWHERE
from pipeline.config.document import Mapping, Node, Sequence
from pipeline.config.scalars import Flag, Text, scalar
from pipeline.config.shapes import Json, Key, ListOf, Reader, Record, Shape
from pipeline.config.words import Environment
from pipeline.spec import (
    Need,
)
from runtime.errors import InvalidInput
from runtime.spans import Span


class If(Shape[Expression]):
    def parse(self, node: Node, reader: Reader) -> Expression:
        expression = parse_expression(scalar(node, self).text, node.span)
        for name in expression.names():
            try:
                reader.lookup(name if "." in name else f"env.{name}")
            except KeyError as error:
                raise InvalidInput(
                    f"unknown name `{name}` in `if`", node.span, hint=str(error.args[0])
                ) from error
        return expression

    def schema(self) -> Json:
        return {"type": ["string", "boolean"]}

    def expects(self) -> str:
        return "an expression"


GLOBS = ListOf(Text(later=False), single=True)
_CLAUSE = Record(
    Clause,
    {
        "branch": Key(GLOBS, "globs of branch names; `!glob` takes away"),
        "tag": Key(GLOBS, "globs of tags, or true for any tag"),
        "changes": Key(GLOBS, "one of these paths changed since the merge base"),
        "exists": Key(GLOBS, "these files exist"),
        "env": Key(Environment(), "variables and the globs they must match"),
    },
    what="`when`",
)


class When(Shape[tuple[Clause, ...]]):
    """A mapping (all must hold) or a list of mappings (one must)."""

    def parse(self, node: Node, reader: Reader) -> tuple[Clause, ...]:
        return ListOf(_CLAUSE, single=True).parse(node, reader)

    def schema(self) -> Json:
        return ListOf(_CLAUSE, single=True).schema()


CONDITION = {
    "when": Key(When(), "only when this holds"),
    "if": Key(If(), "only when this expression is true", "if_"),
}


def with_condition(given: dict[str, Any]) -> dict[str, Any]:
    clauses, expression = given.pop("when", ()), given.pop("if_", None)
    return {**given, "when": Condition(clauses, expression) if clauses or expression else ALWAYS}


class Needs(Shape[tuple[Need, ...]]):
    def parse(self, node: Node, reader: Reader) -> tuple[Need, ...]:
        items = node.items if isinstance(node, Sequence) else (node,)
        found = [reader.attempt(_NeedItem(), item) for item in items]
        return tuple(need for need in found if need is not None)

    def schema(self) -> Json:
        one = _NeedItem().long(NOWHERE).schema()
        return {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [{"type": "string"}, one]}}]
        }


class _NeedItem(Shape[Need]):
    def parse(self, node: Node, reader: Reader) -> Need:
        if isinstance(node, Mapping):
            return self.long(node.span).parse(node, reader)
        return Need(Text(later=False).parse(node, reader), span=node.span)

    def long(self, span: Span) -> Record[Need]:
        keys = {
            "stage": Key(Text(later=False), "the stage", required=True),
            "optional": Key(Flag(), "go on when it is left out of the run"),
            "artifacts": Key(Flag(), "put its artifacts where it had them"),
        }
        return Record(Need, keys, given=(("span", span),), what="a need")
