"""Source policies: rules that allow, deny or exchange what a build takes from elsewhere (FEATURES A-101; BuildKit, docs/build-repro.md).

A source is named as BuildKit names it: `docker-image://docker.io/library/busybox:latest`, `https://…`, `git://host/repo.git#ref`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from registry_client.values import field, frozen
from runtime.errors import Denied, InvalidInput, did_you_mean

IMAGE = "docker-image://"
CHECKSUM = "http.checksum"
_ROUNDS = 20  # as in BuildKit
_ACTIONS = ("ALLOW", "DENY", "CONVERT")
_MATCHES = ("WILDCARD", "EXACT", "REGEX")
_CONDITIONS = ("EQUAL", "NOTEQUAL", "MATCHES")
_KEYS = {
    "policy": ("rules", "version"),
    "rule": ("action", "selector", "updates"),
    "selector": ("identifier", "match_type", "constraints"),
    "updates": ("identifier", "attrs"),
    "constraint": ("key", "value", "condition"),
}


@frozen
class Source:
    """What is wanted; `attributes` are what else is known of it, by BuildKit's names."""

    identifier: str
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)


@frozen
class _Constraint:
    key: str
    value: str
    condition: str

    def holds(self, attributes: Mapping[str, str]) -> bool:
        found = attributes.get(self.key, "")
        if self.condition == "MATCHES":
            return _wildcard(self.value).fullmatch(found) is not None
        return (found == self.value) == (self.condition == "EQUAL")


@frozen
class _Rule:
    action: str
    identifier: str
    pattern: re.Pattern[str] | None  # None: exactly the identifier
    constraints: tuple[_Constraint, ...]
    destination: str
    attributes: Mapping[str, str]

    def match(self, source: Source) -> tuple[str, ...] | None:
        """What the parts of the pattern stand for; None when it is another source."""
        if not all(each.holds(source.attributes) for each in self.constraints):
            return None
        if self.pattern is None:
            return (source.identifier,) if source.identifier == self.identifier else None
        found = self.pattern.search(source.identifier)
        return None if found is None else (found[0], *(group or "" for group in found.groups()))

    def converted(self, source: Source, groups: tuple[str, ...]) -> Source:
        def group(found: re.Match[str]) -> str:
            number = int(found[1])
            return groups[number] if number < len(groups) else ""

        destination = re.sub(r"\$\{(\d+)\}", group, self.destination) or source.identifier
        return Source(destination, {**source.attributes, **self.attributes})


@frozen
class SourcePolicy:
    rules: tuple[_Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def apply(self, source: Source) -> Source:
        """What is to be taken instead, most often the same; Denied when it may not be."""
        for _ in range(_ROUNDS):
            then = self._round(source)
            if then == source:
                return source
            source = then
        raise InvalidInput(f"source policy: rules exchange {source.identifier!r} again and again")

    def _round(self, source: Source) -> Source:
        denied = False
        for rule in self.rules:
            groups = rule.match(source)
            if groups is None:
                continue
            if rule.action == "CONVERT":
                then = rule.converted(source, groups)
                if then != source:
                    return then
            else:
                denied = rule.action == "DENY"
        if denied:
            raise Denied(f"source {source.identifier!r} is denied by the source policy")
        return source


def parse_policy(text: str, name: str) -> SourcePolicy:
    """A policy in JSON; InvalidInput names the place."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"source policy {name} is not JSON: {error}") from error
    where = f"source policy {name}"
    rules = _checked(record, "policy", where).get("rules", [])
    if not isinstance(rules, list):
        raise InvalidInput(f"{where}: rules is not a list")
    return SourcePolicy(tuple(_rule(each, f"{where}: rules[{number}]") for number, each in enumerate(rules)))


def _rule(record: Any, where: str) -> _Rule:
    rule = _checked(record, "rule", where)
    action = _word(rule.get("action", 0), _ACTIONS, f"{where}.action")
    selector = _checked(rule.get("selector"), "selector", f"{where}.selector")
    identifier = _text(selector.get("identifier", ""), f"{where}.selector.identifier")
    kind = _word(selector.get("match_type", 0), _MATCHES, f"{where}.selector.match_type")
    updates = _checked(rule.get("updates") or {}, "updates", f"{where}.updates")
    attributes = updates.get("attrs") or {}
    destination = _text(updates.get("identifier", ""), f"{where}.updates.identifier")
    if not isinstance(attributes, dict):
        raise InvalidInput(f"{where}.updates.attrs is not an object")
    if action == "CONVERT" and not destination and not attributes:
        raise InvalidInput(f"{where}: CONVERT needs updates")
    try:
        pattern = _pattern(kind, identifier)
    except re.error as error:
        raise InvalidInput(f"{where}.selector.identifier is no pattern: {error}") from error
    constraints = selector.get("constraints") or []
    return _Rule(
        action,
        identifier,
        pattern,
        tuple(_constraint(each, f"{where}.selector.constraints[{n}]") for n, each in enumerate(constraints)),
        destination,
        {str(key): _text(value, f"{where}.updates.attrs.{key}") for key, value in attributes.items()},
    )


def _pattern(kind: str, identifier: str) -> re.Pattern[str] | None:
    if kind == "EXACT":
        return None
    return re.compile(identifier) if kind == "REGEX" else _wildcard(identifier)


def _constraint(record: Any, where: str) -> _Constraint:
    found = _checked(record, "constraint", where)
    return _Constraint(
        _text(found.get("key", ""), where),
        _text(found.get("value", ""), where),
        _word(found.get("condition", 0), _CONDITIONS, f"{where}.condition"),
    )


def _wildcard(text: str) -> re.Pattern[str]:
    """`*` is any text, and the Nth of them `${N}` in what a source is exchanged for."""
    return re.compile("^" + "(.*)".join(map(re.escape, text.split("*"))) + "$", re.DOTALL)


def _checked(record: Any, kind: str, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise InvalidInput(f"{where} is not an object")
    for key in record:
        if key not in _KEYS[kind]:
            raise InvalidInput(f"{where}: unknown key {key!r}", hint=did_you_mean(key, _KEYS[kind]))
    return record


def _word(value: Any, words: tuple[str, ...], where: str) -> str:
    """A word or its number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
        return words[value]
    if value in words:
        return str(value)
    raise InvalidInput(f"{where}: {value!r}", hint=f"one of {', '.join(words)}")


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise InvalidInput(f"{where} is not a string")
