"""From what the files say to the targets that are built: parents, `--set`, groups."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable, Mapping, Sequence

from pipeline.bake.definition import ATTRIBUTES, Definition, Target, merge, names_of
from registry_client.values import frozen
from runtime.errors import InvalidInput, NotFound, did_you_mean

# `--set` has its own names for some attributes.
_SET = {"platform": "platforms", "secrets": "secret", "outputs": "output", "ulimit": "ulimits"}


@frozen
class Baking:
    """What is to be built: targets by name, those that were asked for, and the groups they were asked for by."""

    targets: Mapping[str, Target]
    asked: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]


def resolve_targets(
    definition: Definition, names: Sequence[str], settings: Sequence[str], env: Mapping[str, str]
) -> Baking:
    """The targets of `names` (groups or targets; `default` if none is given) and of those they take contexts from."""
    expanded, groups = definition.targets, definition.groups
    wanted = names or ("default",)
    asked = _members(wanted, groups, expanded)
    found: dict[str, Target] = {}
    waiting = list(asked)
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        if name not in expanded:
            raise _unknown(name, expanded)
        found[name] = _cleaned(_overridden(name, _inherited(name, expanded, ()), settings, env))
        waiting += needs(found[name])
    _check_settings(settings, expanded)
    return Baking(found, tuple(asked), _named(wanted, groups))


def _cleaned(target: Target) -> Target:
    """The context as a path; `cwd://` is where the command runs."""
    context = target.get("context", "")
    if context.startswith("cwd://"):
        context = context.removeprefix("cwd://") or "."
    if not context or context == "-" or "://" in context or context.startswith(("target:", "git@")):
        return target
    return {**target, "context": posixpath.normpath(context)}


def needs(target: Target) -> list[str]:
    """Targets whose results a target takes as contexts."""
    contexts = (target.get("contexts") or {}).values()
    return [value.removeprefix("target:") for value in contexts if value and value.startswith("target:")]


def _named(wanted: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The groups that were asked for. What was asked for by any other name than `default` is in that one."""
    found = _groups_below(wanted, groups)
    members = {*found.get("default", ()), *(name for name in wanted if name != "default")}
    return {**found, "default": tuple(sorted(members or {"default"}))}


def _groups_below(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in groups and name not in found:
            found[name] = tuple(groups[name])
            waiting += groups[name]
    return found


def _unknown(name: str, known: Iterable[str]) -> NotFound:
    names = list(known)
    return NotFound(
        f"no target or group {name!r}", hint=did_you_mean(name, names) or f"there is {', '.join(names)}"
    )


def _members(
    names: Sequence[str], groups: Mapping[str, Sequence[str]], targets: Mapping[str, Target]
) -> list[str]:
    found: dict[str, None] = {}

    def take(name: str, above: tuple[str, ...]) -> None:
        if name in above and name not in targets:
            raise InvalidInput(f"group {name!r} contains itself: {' -> '.join((*above, name))}")
        if name in groups and name not in above:
            for each in groups[name]:
                take(each, (*above, name))
        elif name in targets:
            found[name] = None
        else:
            raise _unknown(name, names_of(groups, targets))

    for name in names:
        take(name, ())
    return list(found)


# --- parents ------------------------------------------------------------------------------------------------------


def _inherited(name: str, targets: Mapping[str, Target], below: tuple[str, ...]) -> Target:
    if name in below:
        raise InvalidInput(f"target {name!r} inherits from itself: {' -> '.join((*below, name))}")
    if name not in targets:
        raise _unknown(name, targets)
    made: Target = {}
    for parent in targets[name].get("inherits", ()):
        made = merge(made, _inherited(parent, targets, (*below, name)))
    own = {key: value for key, value in targets[name].items() if key not in ("inherits", "matrix", "name")}
    return {key: value for key, value in merge(made, own).items() if key != "inherits"}


# --- --set --------------------------------------------------------------------------------------------------------


def _parsed_setting(text: str) -> tuple[str, str, str, str | None, bool]:
    """`PATTERN.KEY[.NAME]=VALUE`, or `+=` to add: pattern, attribute, name, value, whether it is added."""
    path, equals, value = text.partition("=")
    added = path.endswith("+")
    pattern, _, key = path.removesuffix("+").partition(".")
    key, _, name = key.partition(".")
    key = _SET.get(key, key)
    attribute = ATTRIBUTES.get(key)
    if not pattern or attribute is None or key in ("inherits", "matrix", "name"):
        raise InvalidInput(
            f"--set {text!r} is not TARGET.ATTRIBUTE=VALUE", hint=did_you_mean(key, (*ATTRIBUTES, *_SET))
        )
    if (attribute.kind == "map") != bool(name):
        hint = f"--set {pattern}.{key}.NAME=VALUE" if attribute.kind == "map" else ""
        raise InvalidInput(
            f"--set {text!r}: {key} is {'a map' if attribute.kind == 'map' else 'no map'}", hint=hint
        )
    if not equals and not name:
        raise InvalidInput(f"--set {text!r} has no value")
    return pattern, key, name, value if equals else None, added


def _overridden(name: str, target: Target, settings: Sequence[str], env: Mapping[str, str]) -> Target:
    made, seen = dict(target), set[str]()
    for text in settings:
        pattern, key, entry, value, added = _parsed_setting(text)
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        kind = ATTRIBUTES[key].kind
        if kind == "map":
            given = env.get(entry) if value is None else value
            if given is not None:
                made[key] = {**(made.get(key) or {}), entry: given}
        elif kind == "list":
            # The first --set replaces what the file says, further ones add.
            kept = list(made.get(key, ())) if added or key in seen else []
            made[key] = [*kept, *([value] if value else [])]
            seen.add(key)
        elif kind == "truth":
            made[key] = (value or "").lower() in ("true", "1")
        else:
            made[key] = value or ""
    return made


def _check_settings(settings: Sequence[str], targets: Mapping[str, Target]) -> None:
    for text in settings:
        pattern = _parsed_setting(text)[0]
        if not fnmatch.filter(targets, pattern):
            raise NotFound(f"--set {text!r}: no target {pattern!r}", hint=did_you_mean(pattern, targets))
