"""What a bake file may say of a target, and how two sayings are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from registry_client.values import field, frozen
from runtime.errors import InvalidInput, did_you_mean

Target = dict[str, Any]  # attributes by name, as the table has them

FIELDS = (
    "attest",
    "cache-from",
    "cache-to",
    "output",
    "secret",
    "ssh",
)  # lists whose entries may be objects


@frozen
class Attribute:
    """`kind` is text, list, map or truth. `merged`: what another file or a parent says is added to, not replaced."""

    kind: str
    merged: bool = False


# As `Target.Merge` of buildx does: maps by key, some lists one after the other, the others by the last who says any.
ATTRIBUTES: Mapping[str, Attribute] = {
    "annotations": Attribute("list", merged=True),
    "args": Attribute("map", merged=True),
    "attest": Attribute("list", merged=True),
    "cache-from": Attribute("list", merged=True),
    "cache-to": Attribute("list"),
    "call": Attribute("text"),
    "context": Attribute("text"),
    "contexts": Attribute("map", merged=True),
    "description": Attribute("text"),
    "dockerfile": Attribute("text"),
    "dockerfile-inline": Attribute("text"),
    "entitlements": Attribute("list", merged=True),
    "extra-hosts": Attribute("map", merged=True),
    "inherits": Attribute("list", merged=True),
    "labels": Attribute("map", merged=True),
    "matrix": Attribute("lists"),
    "name": Attribute("text"),
    "network": Attribute("text"),
    "no-cache": Attribute("truth"),
    "no-cache-filter": Attribute("list", merged=True),
    "output": Attribute("list"),
    "platforms": Attribute("list"),
    "pull": Attribute("truth"),
    "secret": Attribute("list", merged=True),
    "shm-size": Attribute("text"),
    "ssh": Attribute("list", merged=True),
    "tags": Attribute("list"),
    "target": Attribute("text"),
    "ulimits": Attribute("list", merged=True),
}


@frozen
class Definition:
    """Everything the files say, with the values of variables in it."""

    targets: Mapping[str, Target] = field(default_factory=dict, hash=False)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def merged(self, other: Definition) -> Definition:
        """`other` comes later and wins."""
        targets = dict(self.targets)
        for name, target in other.targets.items():
            targets[name] = merge(targets.get(name, {}), target)
        groups = dict(self.groups)
        for name, members in other.groups.items():
            groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), *members)))
        return Definition(targets, groups)


def merge(first: Target, then: Target) -> Target:
    """One target out of two sayings."""
    made = dict(first)
    for name, value in then.items():
        attribute = ATTRIBUTES[name]
        if not attribute.merged or name not in made:
            made[name] = value
        elif attribute.kind == "map":
            # As buildx: null says nothing, it does not take back what was said.
            made[name] = {**made[name], **{key: each for key, each in value.items() if each is not None}}
        else:
            made[name] = [*made[name], *(each for each in value if each not in made[name])]
    return made


def read_target(where: str, record: object, refuse: Callable[[str], None] = lambda _: None) -> Target:
    """A target's attributes, each of its kind; InvalidInput names the place."""
    if not isinstance(record, Mapping):
        raise InvalidInput(f"{where} is not an object")
    target: Target = {}
    for name, value in record.items():
        refuse(name)
        attribute = ATTRIBUTES.get(name)
        if attribute is None:
            raise InvalidInput(f"{where}: unknown attribute {name!r}", hint=did_you_mean(name, ATTRIBUTES))
        if value is not None:
            target[name] = _value(f"{where}.{name}", name, attribute.kind, value)
    return target


def _value(where: str, name: str, kind: str, value: Any) -> Any:
    if kind == "text" and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return _text(where, value)
    if kind == "truth" and isinstance(value, (bool, str)):
        return value
    if kind == "list" and isinstance(value, list):
        entries = [_entry(f"{where}[{number}]", name, each) for number, each in enumerate(value)]
        return list(dict.fromkeys(filter(None, entries)))
    if kind == "map" and isinstance(value, Mapping):
        return {
            str(key): None if each is None else _text(f"{where}.{key}", each) for key, each in value.items()
        }
    if (
        kind == "lists"
        and isinstance(value, Mapping)
        and all(isinstance(each, list) for each in value.values())
    ):
        return {str(key): list(each) for key, each in value.items()}
    wanted = {"text": "a string", "truth": "true or false", "list": "a list", "map": "an object"}
    raise InvalidInput(f"{where} is not {wanted.get(kind, 'an object of lists')}")


def _entry(where: str, name: str, value: Any) -> str:
    if isinstance(value, Mapping) and name in FIELDS:
        return fields_text({str(key): _text(f"{where}.{key}", each) for key, each in value.items()}, name)
    return _text(where, value)


def fields_text(fields: Mapping[str, str], name: str = "") -> str:
    """The object as a flag's value: `type=registry,ref=…`; an ssh agent is `id=path`."""
    if name == "ssh":
        paths = fields.get("paths") or fields.get("path", "")
        return f"{fields.get('id', 'default')}={paths}" if paths else fields.get("id", "default")
    return ",".join(f'"{key}={value}"' if "," in value else f"{key}={value}" for key, value in fields.items())


def _text(where: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(value, ".15g")
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    raise InvalidInput(f"{where} is neither a string nor a number")


def names_of(groups: Mapping[str, Iterable[str]], targets: Iterable[str]) -> list[str]:
    """Everything that can be asked for."""
    return [*groups, *targets]
