"""What an expression is worth (hclsyntax/spec.md, "Expressions"). Text, numbers and truths turn into each other where the other is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pipeline.bake.hcl.nodes import (
    Attribute,
    Call,
    Condition,
    Expression,
    For,
    HclError,
    Index,
    Literal,
    Name,
    Object,
    Operation,
    Splat,
    Template,
    Tuple,
)
from pipeline.bake.hcl.parser import EACH
from runtime.errors import InvalidInput, PipeError


class Lookup(Protocol):
    """What names mean where an expression stands; KeyError where they mean nothing."""

    def value(self, name: str) -> Any: ...

    def function(self, name: str) -> Callable[..., Any]: ...

    def names(self) -> list[str]: ...


class Inner:
    """A lookup with a few names of its own before those around it."""

    def __init__(self, around: Lookup, own: Mapping[str, Any]) -> None:
        self._around, self._own = around, own

    def value(self, name: str) -> Any:
        return self._own[name] if name in self._own else self._around.value(name)

    def function(self, name: str) -> Callable[..., Any]:
        return self._around.function(name)

    def names(self) -> list[str]:
        return [*self._own, *self._around.names()]


def evaluate(node: Expression, around: Lookup) -> Any:
    return _KINDS[type(node)](node, around)


def _literal(node: Literal, around: Lookup) -> Any:
    return node.value


def _template(node: Template, around: Lookup) -> Any:
    if len(node.parts) == 1:
        return evaluate(node.parts[0], around)
    return "".join(_text_of(evaluate(part, around), node.place) for part in node.parts)


def _text_of(value: Any, place: str) -> str:
    if value is None:
        raise HclError(place, "a value in the text is null")
    try:
        return as_text(value)
    except InvalidInput as error:
        raise HclError(place, error.message) from error


def _name(node: Name, around: Lookup) -> Any:
    from runtime.errors import did_you_mean

    try:
        return around.value(node.name)
    except KeyError:
        hint = did_you_mean(node.name, around.names())
        raise HclError(node.place, f"no variable {node.name!r}", hint) from None


def _attribute(node: Attribute, around: Lookup) -> Any:
    return _item(evaluate(node.of, around), node.name, node.place)


def _index(node: Index, around: Lookup) -> Any:
    return _item(evaluate(node.of, around), evaluate(node.key, around), node.place)


def _item(value: Any, key: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        name = _text_of(key, place)
        if name in value:
            return value[name]
        raise HclError(place, f"there is no {name!r}")
    if isinstance(value, list):
        try:
            number = as_number(key)
        except InvalidInput as error:
            raise HclError(place, error.message) from error
        if number != int(number) or not 0 <= number < len(value):
            raise HclError(place, f"there is no item {as_text(number)} in {len(value)}")
        return value[int(number)]
    raise HclError(place, f"{kind_of(value)} has no {key!r}")


def _splat(node: Splat, around: Lookup) -> Any:
    value = evaluate(node.of, around)
    items = [] if value is None else value if isinstance(value, list) else [value]
    return [evaluate(node.each, Inner(around, {EACH: item})) for item in items]


def _call(node: Call, around: Lookup) -> Any:
    from runtime.errors import did_you_mean

    if node.name in _LAZY:
        return _LAZY[node.name](node, around)
    try:
        function = around.function(node.name)
    except KeyError:
        raise HclError(
            node.place, f"no function {node.name!r}", did_you_mean(node.name, _functions())
        ) from None
    arguments = [evaluate(each, around) for each in node.arguments]
    if node.spread:
        *first, last = arguments
        if not isinstance(last, list):
            raise HclError(node.place, f"what stands before ... is {kind_of(last)}, not a list")
        arguments = [*first, *last]
    try:
        return function(*arguments)
    except HclError:
        raise
    except PipeError as error:
        raise HclError(node.place, f"{node.name}: {error.message}", error.hint) from error
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise HclError(node.place, f"{node.name}: {error}") from error


def _functions() -> list[str]:
    from pipeline.bake.hcl.functions import FUNCTIONS

    return [*FUNCTIONS, *_LAZY]


def _try(node: Call, around: Lookup) -> Any:
    """The first argument that can be worked out."""
    for argument in node.arguments:
        try:
            return evaluate(argument, around)
        except InvalidInput:
            continue
    raise HclError(node.place, "try: none of the arguments can be worked out")


def _can(node: Call, around: Lookup) -> Any:
    try:
        evaluate(node.arguments[0], around)
    except InvalidInput:
        return False
    return True


def _convert(node: Call, around: Lookup) -> Any:
    from pipeline.bake.hcl.types import convert, parse_type

    if len(node.arguments) != 2:
        raise HclError(node.place, "convert: want a value and a type")
    try:
        return convert(evaluate(node.arguments[0], around), parse_type(node.arguments[1], node.place))
    except HclError:
        raise
    except InvalidInput as error:
        raise HclError(node.place, f"convert: {error.message}") from error


_LAZY: Mapping[str, Callable[[Call, Lookup], Any]] = {"try": _try, "can": _can, "convert": _convert}


def _operation(node: Operation, around: Lookup) -> Any:
    try:
        left = evaluate(node.left, around)
        if node.right is None:
            return not as_truth(left) if node.operator == "!" else -as_number(left)
        return _OPERATORS[node.operator](left, evaluate(node.right, around))
    except HclError:
        raise
    except InvalidInput as error:
        raise HclError(node.place, f"{node.operator}: {error.message}") from error
    except (ArithmeticError, ValueError) as error:
        raise HclError(node.place, f"{node.operator}: {error}") from error


def _condition(node: Condition, around: Lookup) -> Any:
    try:
        test = as_truth(evaluate(node.test, around))
    except HclError:
        raise
    except InvalidInput as error:
        raise HclError(node.place, f"?: {error.message}") from error
    return evaluate(node.then if test else node.otherwise, around)


def _tuple(node: Tuple, around: Lookup) -> Any:
    return [evaluate(item, around) for item in node.items]


def _object(node: Object, around: Lookup) -> Any:
    return {_text_of(evaluate(key, around), node.place): evaluate(value, around) for key, value in node.items}


def _for(node: For, around: Lookup) -> Any:
    of = evaluate(node.of, around)
    if isinstance(of, Mapping):
        pairs = [(key, of[key]) for key in sorted(of)]
    elif isinstance(of, list):
        pairs = list(enumerate(of))
    else:
        raise HclError(node.place, f"for: {kind_of(of)} has no items")
    items, record = [], dict[str, Any]()
    for key, each in pairs:
        inner = Inner(around, {node.name: each, **({node.key: key} if node.key else {})})
        if node.test is not None and not as_truth(evaluate(node.test, inner)):
            continue
        value = evaluate(node.value, inner)
        if node.to is None:
            items.append(value)
            continue
        name = _text_of(evaluate(node.to, inner), node.place)
        if node.grouped:
            record.setdefault(name, []).append(value)
        elif name in record:
            raise HclError(node.place, f"for: two values for {name!r}", "group them by ... behind the value")
        else:
            record[name] = value
    if node.as_text:
        return "".join(_text_of(item, node.place) for item in items)
    return items if node.to is None else record


# --- one kind for another -----------------------------------------------------------------------------------------


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(value, ".15g")
    if isinstance(value, str):
        return value
    raise InvalidInput(f"want text, not {kind_of(value)}")


def as_number(value: Any) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if number == number and abs(number) != float("inf"):
            return int(value) if value.lstrip("-").isdigit() else plain(number)
    raise InvalidInput(
        f"want a number, not {value!r}" if isinstance(value, str) else f"want a number, not {kind_of(value)}"
    )


def plain(number: int | float) -> int | float:
    """A whole number as one."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def as_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in ("true", "false", "1", "0"):
        return value in ("true", "1")
    raise InvalidInput(
        f"want true or false, not {value!r}"
        if isinstance(value, str)
        else f"want true or false, not {kind_of(value)}"
    )


def as_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise InvalidInput(f"want a list, not {kind_of(value)}")


def as_object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise InvalidInput(f"want an object, not {kind_of(value)}")


def same(left: Any, right: Any) -> bool:
    """Equal, and of one kind: 1 is neither true nor "1"."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def divided(left: Any, right: Any) -> int | float:
    return plain(as_number(left) / as_number(right))


def remainder(left: Any, right: Any) -> int | float:
    """With the sign of the left one, as in Go."""
    import math

    return plain(math.fmod(as_number(left), as_number(right)))


_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "||": lambda a, b: as_truth(a) or as_truth(b),
    "&&": lambda a, b: as_truth(a) and as_truth(b),
    "==": same,
    "!=": lambda a, b: not same(a, b),
    "<": lambda a, b: as_number(a) < as_number(b),
    ">": lambda a, b: as_number(a) > as_number(b),
    "<=": lambda a, b: as_number(a) <= as_number(b),
    ">=": lambda a, b: as_number(a) >= as_number(b),
    "+": lambda a, b: plain(as_number(a) + as_number(b)),
    "-": lambda a, b: plain(as_number(a) - as_number(b)),
    "*": lambda a, b: plain(as_number(a) * as_number(b)),
    "/": divided,
    "%": remainder,
}
_KINDS: Mapping[type, Callable[[Any, Lookup], Any]] = {
    Literal: _literal, Template: _template, Name: _name, Attribute: _attribute, Index: _index, Splat: _splat, Call: _call,
    Operation: _operation, Condition: _condition, Tuple: _tuple, Object: _object, For: _for,
}  # fmt: skip
