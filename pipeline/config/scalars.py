"""Shapes of single values: texts, names, choices, flags, numbers, durations, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.config.document import Node, Scalar, kind_of
from pipeline.config.interpolate import has_placeholder
from pipeline.config.shapes import Json, Reader, Shape
from pipeline.config.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size
from registry_client.values import frozen
from runtime.errors import InvalidInput, did_you_mean

T = TypeVar("T")
_VARIABLE: Json = {"type": "string", "pattern": r"\$"}
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def scalar(node: Node, shape: Shape[Any], hint: str = "") -> Scalar:
    if not isinstance(node, Scalar) or node.null:
        raise InvalidInput(f"expected {shape.expects()}, not {kind_of(node)}", node.span, hint=hint)
    return node


@frozen
class Text(Shape[str]):
    """`later`: may wait for a matrix value, a digest or an output. `raw`: not interpolated (scripts)."""

    pattern: str = ""
    what: str = "a text"
    later: bool = True
    raw: bool = False
    null: bool = False
    check: Callable[[str], object] | None = None  # raises ValueError

    def parse(self, node: Node, reader: Reader) -> str:
        if self.null and isinstance(node, Scalar) and node.null:
            return ""
        value = scalar(node, self)
        text = value.text if self.raw else reader.text(value)
        if has_placeholder(text):
            if not self.later:
                raise InvalidInput("a value that is known only during the run cannot be used here", node.span)
            return text
        if "\0" in text:
            raise InvalidInput("a NUL character in a text", node.span)
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise InvalidInput(
                f"{text!r} is not {self.what}", node.span, hint=f"it must match `{self.pattern}`"
            )
        if self.check is not None:
            try:
                self.check(text)
            except ValueError as error:
                raise InvalidInput(str(error), node.span) from error
        return text

    def schema(self) -> Json:
        return {
            "type": ["string", "number", "boolean", "null"] if self.null else ["string", "number", "boolean"]
        }

    def expects(self) -> str:
        return self.what


@frozen
class Name(Text):
    """A word that names something of ours; never interpolated away to nothing."""

    pattern: str = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
    what: str = "a name"
    later: bool = False


@frozen
class Choice(Shape[str]):
    values: tuple[str, ...]

    def parse(self, node: Node, reader: Reader) -> str:
        text = reader.text(scalar(node, self))
        if text not in self.values:
            hint = did_you_mean(text, self.values)
            raise InvalidInput(f"{text!r} is not {self.expects()}", node.span, hint=hint)
        return text

    def schema(self) -> Json:
        return {"enum": list(self.values)}

    def expects(self) -> str:
        return "one of " + ", ".join(f"`{value}`" for value in self.values)


@frozen
class Flag(Shape[bool]):
    def parse(self, node: Node, reader: Reader) -> bool:
        text = reader.text(scalar(node, self))
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        hint = (
            "YAML 1.2 has no `yes`, `no`, `on`, `off`" if text.lower() in ("yes", "no", "on", "off") else ""
        )
        raise InvalidInput(f"expected true or false, not {text!r}", node.span, hint=hint)

    def schema(self) -> Json:
        return {"anyOf": [{"type": "boolean"}, _VARIABLE]}

    def expects(self) -> str:
        return "true or false"


class _Checked(Shape[T]):
    """A scalar that a function from text to value understands."""

    def convert(self, text: str) -> T:
        raise ValueError(text)

    def parse(self, node: Node, reader: Reader) -> T:
        text = reader.text(scalar(node, self))
        if has_placeholder(text):
            raise InvalidInput("a value that is known only during the run cannot be used here", node.span)
        try:
            return self.convert(text)
        except ValueError as error:
            raise InvalidInput(str(error), node.span) from error


@frozen
class Integer(_Checked[int]):
    low: int = 0
    high: int = 1 << 62

    def convert(self, text: str) -> int:
        if not re.fullmatch(r"[-+]?\d{1,19}", text):
            raise ValueError(f"expected a whole number, not {text!r}")
        number = int(text)
        if not self.low <= number <= self.high:
            raise ValueError(f"{number} is not between {self.low} and {self.high}")
        return number

    def schema(self) -> Json:
        return {
            "anyOf": [
                {"type": "integer", "minimum": self.low},
                {"type": "string", "pattern": r"^[-+]?\d+$|\$"},
            ]
        }

    def expects(self) -> str:
        return "a whole number"


@frozen
class Number(_Checked[float]):
    def convert(self, text: str) -> float:
        if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?|\.\d{1,12}", text):
            raise ValueError(f"expected a number, not {text!r}")
        return float(text)

    def schema(self) -> Json:
        return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d*\.?\d+$|\$"}]}

    def expects(self) -> str:
        return "a number"


@frozen
class Duration(_Checked[float]):
    def convert(self, text: str) -> float:
        return parse_duration(text)

    def schema(self) -> Json:
        return {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": DURATION_PATTERN + r"|\$"},
            ]
        }

    def expects(self) -> str:
        return "a duration like `90s` or `10m`"


@frozen
class Size(_Checked[int]):
    def convert(self, text: str) -> int:
        return parse_size(text)

    def schema(self) -> Json:
        return {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN + r"|\$"}]
        }

    def expects(self) -> str:
        return "a size like `512m`"
