"""What the files in HCL and its JSON say together, with everything worked out: targets by name, matrices as targets, groups."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.bake.definition import ATTRIBUTES, FIELDS, Definition, Target, merge, read_target
from pipeline.bake.hcl.evaluate import Inner, Lookup, as_list, as_object, as_text, evaluate
from pipeline.bake.hcl.nodes import Block, Body, HclError
from pipeline.bake.variables import Variables
from registry_client.values import frozen
from runtime.errors import InvalidInput, did_you_mean

_KINDS = ("target", "group", "variable", "function")
_NAME = re.compile("[A-Za-z0-9_-]+")


@frozen
class _Made:
    """A block as one target: what its matrix' names are worth stands in `around`."""

    name: str
    block: Block
    around: Lookup


def evaluated(bodies: list[Body], env: Mapping[str, str]) -> Definition:
    """InvalidInput names the file and the line."""
    try:
        return _Evaluation(bodies, env).definition()
    except RecursionError:
        raise InvalidInput("a bake file has expressions that are nested too deep") from None


class _Evaluation:
    def __init__(self, bodies: list[Body], env: Mapping[str, str]) -> None:
        self._variables = Variables(bodies, env)
        blocks = [block for body in bodies for block in body.blocks]
        for block in blocks:
            if block.kind not in _KINDS:
                raise HclError(block.place, f"unknown block {block.kind!r}", did_you_mean(block.kind, _KINDS))
            if len(block.labels) != 1:
                raise HclError(block.place, f"{block.kind} needs one name")
        self._targets = [block for block in blocks if block.kind == "target"]
        self._groups = [block for block in blocks if block.kind == "group"]
        self._made: dict[str, list[_Made]] = {}
        self._variables.add("target", _Targets(self))
        self.asked: list[tuple[str, str]] = []

    def definition(self) -> Definition:
        self._variables.check()
        groups: dict[str, tuple[str, ...]] = {}
        named: dict[str, list[str]] = {}  # by what the file calls them
        for block in self._targets:
            for made in self._rows(block):
                self._made.setdefault(made.name, []).append(made)
                named.setdefault(block.labels[0], []).append(made.name)
        for block in self._groups:
            groups[block.labels[0]] = self._members(block)
        targets: dict[str, Target] = {}
        for name, parts in self._made.items():
            for part in parts:
                targets[name] = (
                    merge(targets[name], self._read(part)) if name in targets else self._read(part)
                )
        for label, names in named.items():
            if set(names) != {label}:
                groups[label] = tuple(dict.fromkeys((*groups.get(label, ()), *names)))
        return Definition(targets, groups)

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _rows(self, block: Block) -> Iterator[_Made]:
        label, attributes = block.labels[0], block.body.attributes
        if block.body.blocks:
            raise HclError(block.body.blocks[0].place, f"target {label}: no blocks are known in it")
        if "matrix" not in attributes:
            if "name" in attributes:
                raise HclError(block.place, f"target {label}: a name needs a matrix")
            yield _Made(_checked(label, block), block, self._variables)
            return
        seen = set()
        for row in self._matrix(block):
            around = Inner(self._variables, row)
            name = as_text(evaluate(attributes["name"], around)) if "name" in attributes else label
            if name in seen:
                hint = (
                    ""
                    if "name" in attributes
                    else 'give a name that its variables are in: name = "app-${item}"'
                )
                raise HclError(block.place, f"target {label}: its matrix gives {name!r} twice", hint)
            seen.add(name)
            yield _Made(_checked(name, block), block, around)

    def _matrix(self, block: Block) -> Iterator[dict[str, Any]]:
        where = f"target {block.labels[0]}"
        try:
            matrix = as_object(evaluate(block.body.attributes["matrix"], self._variables))
            lists = {key: as_list(value) for key, value in matrix.items()}
        except HclError:
            raise
        except InvalidInput as error:
            raise HclError(block.place, f"{where}: its matrix is no object of lists") from error
        for key in lists:
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_-]*", key):
                raise HclError(block.place, f"{where}: {key!r} of its matrix is no name")
        names = sorted(lists)
        for row in itertools.product(*(lists[name] for name in reversed(names))):  # the first changes fastest
            yield dict(zip(reversed(names), row, strict=True))

    def _members(self, block: Block) -> tuple[str, ...]:
        attributes, where = block.body.attributes, f"group {block.labels[0]}"
        for name in attributes:
            if name not in ("targets", "description"):
                raise HclError(block.place, f"{where}: {name} is not supported")
        if "targets" not in attributes:
            raise HclError(block.place, f"{where} has no list of `targets`")
        try:
            return tuple(as_text(each) for each in as_list(evaluate(attributes["targets"], self._variables)))
        except HclError:
            raise
        except InvalidInput as error:
            raise HclError(block.place, f"{where} has no list of `targets`: {error.message}") from error

    def _read(self, made: _Made) -> Target:
        found = {}
        for name, expression in made.block.body.attributes.items():
            if name not in ("matrix", "name"):
                found[name] = evaluate(expression, made.around) if name in ATTRIBUTES else None
        return read_target(f"{made.block.place}: target {made.name}", found)

    # --- what one target says of another --------------------------------------------------------------------------

    def attribute(self, name: str, attribute: str) -> Any:
        """The value of `target.NAME.ATTRIBUTE`: null where it says none."""
        if attribute == "name":
            return name
        if (name, attribute) in self.asked:
            raise InvalidInput(f"target.{name}.{attribute} needs itself")
        self.asked.append((name, attribute))
        try:
            for made in reversed(self.made(name)):
                if attribute in made.block.body.attributes:
                    value = evaluate(made.block.body.attributes[attribute], made.around)
                    return _as_objects(value) if attribute in FIELDS else value
        finally:
            self.asked.pop()
        return None

    def made(self, name: str) -> list[_Made]:
        if not self._made:  # somebody asks before the names are known: of those without a matrix they are
            return [
                _Made(name, block, self._variables)
                for block in self._targets
                if block.labels == (name,) and "matrix" not in block.body.attributes
            ]
        return self._made.get(name, [])


def _checked(name: str, block: Block) -> str:
    if not _NAME.fullmatch(name):
        raise HclError(
            block.place, f"target {block.labels[0]}: the name {name!r}", hint="letters, digits, _ and - only"
        )
    return name


def _as_objects(value: Any) -> Any:
    """Entries that are written as a flag's value, by field."""
    if not isinstance(value, list):
        return value
    return [
        dict(word.partition("=")[::2] for word in next(csv.reader([item]), []))
        if isinstance(item, str)
        else item
        for item in value
    ]


class _Targets(Mapping[str, Any]):
    """`target` in an expression."""

    def __init__(self, evaluation: _Evaluation) -> None:
        self._evaluation = evaluation

    def __getitem__(self, name: str) -> Any:
        return _Attributes(self._evaluation, name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._evaluation.made(name))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Attributes(Mapping[str, Any]):
    """`target.NAME` in an expression."""

    def __init__(self, evaluation: _Evaluation, name: str) -> None:
        self._evaluation, self._name = evaluation, name

    def __getitem__(self, attribute: str) -> Any:
        return self._evaluation.attribute(self._name, attribute)

    def __contains__(self, attribute: object) -> bool:
        return attribute in ATTRIBUTES

    def __iter__(self) -> Iterator[str]:
        return iter(ATTRIBUTES)

    def __len__(self) -> int:
        return len(ATTRIBUTES)
