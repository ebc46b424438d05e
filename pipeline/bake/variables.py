"""The variables and functions of bake files: what a name is worth, worked out when somebody asks (buildx, docs/bake-reference.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.bake.hcl.evaluate import Inner, as_text, as_truth, evaluate
from pipeline.bake.hcl.functions import FUNCTIONS
from pipeline.bake.hcl.nodes import Block, Body, Expression, HclError, Literal, Name, Template, Tuple
from pipeline.bake.hcl.parser import Parser
from pipeline.bake.hcl.types import Type, convert, from_environment, from_json, implied_type, parse_type
from registry_client.oci.platform import host_platform
from registry_client.values import frozen
from runtime.errors import InvalidInput

_VARIABLE = ("type", "default", "description")
_FUNCTION = ("params", "variadic_params", "result")


@frozen
class _Function:
    parameters: tuple[str, ...]
    rest: str  # the name of what takes all further arguments, or ""
    result: Expression
    place: str


class Variables:
    """The names of all files together. A file's `NAME = …` wins over a variable's default, the environment over both."""

    def __init__(self, bodies: list[Body], env: Mapping[str, str]) -> None:
        self._env = env
        self._set: dict[str, Expression] = {}
        self._variables: dict[str, Block] = {}
        self._functions: dict[str, _Function] = {}
        for body in bodies:
            self._set |= body.attributes
            for block in body.blocks:
                if block.kind == "variable":
                    _check(block, _VARIABLE)
                    self._variables[block.labels[0]] = block
                elif block.kind == "function":
                    self._functions[block.labels[0]] = _function(block)
        self._known: dict[str, Any] = {
            "BAKE_CMD_CONTEXT": "cwd://",
            "BAKE_LOCAL_PLATFORM": str(host_platform()),
        }
        self._asked: list[str] = []

    def add(self, name: str, value: Any) -> None:
        """A name that is neither a variable nor set by a file."""
        self._known[name] = value

    def check(self) -> None:
        """Work out all of them: a mistake in one nobody uses is one too."""
        for name in (*self._set, *self._variables):
            self.value(name)
        for name, block in self._variables.items():
            for validation in block.body.blocks:
                self._validate(name, validation)

    def _validate(self, name: str, block: Block) -> None:
        condition, message = (
            block.body.attributes.get("condition"),
            block.body.attributes.get("error_message"),
        )
        if block.kind != "validation" or condition is None:
            raise HclError(block.place, f"variable {name} has a block that is no validation with a condition")
        if not as_truth(evaluate(condition, self)):
            said = "" if message is None else as_text(evaluate(message, self))
            raise HclError(block.place, f"variable {name}: {said or 'its value is not valid'}")

    # --- what names are worth -------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return [*self._set, *self._variables, *self._known]

    def value(self, name: str) -> Any:
        if name not in self._known:
            with self._asking(name):
                self._known[name] = self._worked_out(name)
        return self._known[name]

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        if name in self._asked:
            way = " -> ".join([*self._asked[self._asked.index(name) :], name])
            raise InvalidInput(f"variables need each other: {way}")
        self._asked.append(name)
        try:
            yield
        finally:
            self._asked.pop()

    def _worked_out(self, name: str) -> Any:
        block = self._variables.get(name)
        if block is None:
            return evaluate(self._set[name], self)
        written = block.body.attributes.get("type")
        kind = None if written is None else parse_type(_as_type(written, block.place), block.place)
        value = self._default(name, block, kind)
        try:
            return self._from_outside(name, kind, value)
        except HclError:
            raise
        except InvalidInput as error:
            raise HclError(block.place, f"variable {name}: {error.message}", error.hint) from error

    def _default(self, name: str, block: Block, kind: Type | None) -> Any:
        written = self._set.get(name, block.body.attributes.get("default"))
        value = evaluate(written, self) if written is not None else None if kind else ""
        if kind is None:
            return value
        try:
            return convert(value, kind)
        except InvalidInput as error:
            raise HclError(
                block.place, f"variable {name}: its default is not of its type: {error.message}"
            ) from error

    def _from_outside(self, name: str, kind: Type | None, value: Any) -> Any:
        text = self._env.get(name)
        if kind is not None and (json := self._env.get(f"{name}_JSON")) is not None and text is None:
            return from_json(json, kind)
        if text is None:
            return value
        return from_environment(text, kind or implied_type(value))

    # --- functions ------------------------------------------------------------------------------------------------

    def function(self, name: str) -> Callable[..., Any]:
        own = self._functions.get(name)
        if own is None:
            return FUNCTIONS[name]

        def call(*arguments: Any) -> Any:
            count, least = len(arguments), len(own.parameters)
            if count < least or (count > least and not own.rest):
                raise InvalidInput(f"takes {least} arguments, not {count}")
            given = dict(zip(own.parameters, arguments, strict=False))
            if own.rest:
                given[own.rest] = list(arguments[least:])
            with self._asking(f"{name}()"):
                return evaluate(own.result, Inner(self, given))

        return call


def _check(block: Block, known: tuple[str, ...]) -> None:
    from runtime.errors import did_you_mean

    if len(block.labels) != 1:
        raise HclError(block.place, f"{block.kind} needs one name")
    for name in block.body.attributes:
        if name not in known:
            raise HclError(
                block.place, f"{block.kind}: unknown attribute {name!r}", did_you_mean(name, known)
            )


def _function(block: Block) -> _Function:
    _check(block, _FUNCTION)
    attributes = block.body.attributes
    parameters, result = attributes.get("params"), attributes.get("result")
    if not isinstance(parameters, Tuple) or result is None:
        raise HclError(block.place, f"function {block.labels[0]} needs `params` and `result`")
    rest = attributes.get("variadic_params")
    return _Function(
        tuple(_parameter(each, block) for each in parameters.items),
        "" if rest is None else _parameter(rest, block),
        result,
        block.place,
    )


def _parameter(node: Expression, block: Block) -> str:
    """A name; in JSON it is text."""
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Literal) and isinstance(node.value, str):
        return node.value
    raise HclError(block.place, f"function {block.labels[0]}: a parameter is not a name")


def _as_type(node: Expression, place: str) -> Expression:
    """In JSON a type is text."""
    if isinstance(node, Template):
        raise HclError(place, "a type is no template")
    if isinstance(node, Literal) and isinstance(node.value, str):
        return Parser(node.value, place).expression()
    return node
