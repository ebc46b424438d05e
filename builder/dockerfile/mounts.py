"""`RUN --mount=…` (FEATURES A-56 … A-61): read its fields when the file is parsed, make sense of them when variables are known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from builder.dockerfile.ast import Mount, MountOption
from builder.dockerfile.nodes import Node
from registry_client.tuples import NamedTuple
from runtime.errors import did_you_mean

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_ALIASES = {
    "src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite",
}  # fmt: skip
_KEYS = (
    "type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode", "uid",
    "gid", "env",
)  # fmt: skip
_BARE = ("readonly", "readwrite", "required")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


class ResolvedMount(NamedTuple):
    """A mount with its values expanded. `target` is "" where the type has a default for it."""

    kind: str = "bind"
    origin: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = True
    id: str = ""
    sharing: str = ""
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None


def parse_mount(node: Node, text: str) -> Mount:
    """Split the fields and check their names; values that have no variable are checked as well."""
    options = tuple(_option(node, field) for field in _fields(node, text))
    origin = next((o.value or "" for o in options if o.key == "from"), "")
    if re.search(r"\$.", origin):
        raise node.error(
            f"from={origin} does not take variables",
            "from=",
            hint="define a stage: `FROM … AS name` with a global ARG",
        )
    kind = next((o.value or "" for o in options if o.key == "type"), "bind").lower()
    mount = Mount(text, options, origin, kind)
    if "$" not in text:
        resolve_mount(node, mount, lambda word: word)
    return mount


def _fields(node: Node, text: str) -> list[str]:
    """One CSV record (RFC 4180 quotes)."""
    from runtime.fields import split_fields

    fields = split_fields(text)
    if fields is None:
        raise node.error(f"invalid quotes in mount {text!r}", text, hint='quote a whole field: "target=/a,b"')
    return fields


def _option(node: Node, field: str) -> MountOption:
    key, equals, value = field.partition("=")
    lower = key.strip().lower()
    name = _ALIASES.get(lower, lower)
    if name not in _KEYS:
        raise node.error(
            f"unexpected key {key!r} in mount {field!r}", field, hint=did_you_mean(key, (*_KEYS, *_ALIASES))
        )
    if not equals and name not in _BARE:
        raise node.error(f"invalid field {field!r} in mount: want key=value", field)
    return MountOption(name, value if equals else None, field)


def resolve_mount(node: Node, mount: Mount, expand: Callable[[str], str]) -> ResolvedMount:
    """Expand the values (not `from`), check them, and fill in what depends on the type."""
    found, readonly = ResolvedMount(), None
    for option in mount.options:
        value = option.value
        if value is not None and option.key != "from":
            value = expand(value)
        if option.key in ("readonly", "readwrite"):
            flag = True if value is None else _boolean(node, option, value)
            readonly = flag if option.key == "readonly" else not flag
        else:
            found = found._replace(**_field(node, option, value))
    if readonly is None:
        readonly = found.kind not in ("cache", "tmpfs")
    return _checked(node, mount, found._replace(readonly=readonly))


def _field(node: Node, option: MountOption, value: str | None) -> dict[str, Any]:
    text = value or ""
    match option.key:
        case "type":
            return {"kind": _choice(node, option, text.lower(), TYPES)}
        case "sharing":
            return {"sharing": _choice(node, option, text.lower(), SHARING)}
        case "required":
            return {"required": True if value is None else _boolean(node, option, text)}
        case "size":
            return {"size": _size(node, option, text)}
        case "mode":
            return {"mode": _number(node, option, text, 8)}
        case "uid" | "gid":
            return {option.key: _number(node, option, text, 10)}
        case "from":
            return {"origin": text}
        case "env" if not text:
            raise node.error("env in mount needs the name of a variable", option.text)
        case _:
            return {option.key: text}


def _choice(node: Node, option: MountOption, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        hint = did_you_mean(value, choices) or "one of " + ", ".join(choices)
        raise node.error(f"unsupported mount {option.key} {value!r}", option.text, hint=hint)
    return value


def _boolean(node: Node, option: MountOption, value: str) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        raise node.error(
            f"invalid value for {option.key} in mount: {value!r}", option.text, hint="true or false"
        )
    return value.lower() in _TRUE


def _number(node: Node, option: MountOption, value: str, base: int) -> int:
    if not re.fullmatch("[0-7]{1,11}" if base == 8 else "[0-9]{1,10}", value) or int(value, base) >= 1 << 32:
        raise node.error(f"invalid value for {option.key} in mount: {value!r}", option.text)
    return int(value, base)


def _size(node: Node, option: MountOption, value: str) -> int:
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([kmgtp]?)(?:i?b)?)", value.lower())
    if match is None:
        raise node.error(f"invalid value for size in mount: {value!r}", option.text, hint="such as 64m or 1g")
    return (
        int(float(match[1]) * (1 << _UNITS[match[2]]))
        if "." in match[1]
        else int(match[1]) << _UNITS[match[2]]
    )


def _checked(node: Node, mount: Mount, found: ResolvedMount) -> ResolvedMount:
    problem = ""
    if found.kind not in ("secret", "ssh", "cache"):
        given = [name for name in ("mode", "uid", "gid") if getattr(found, name) is not None]
        problem = f"{given[0]} is not allowed" if given else ""
    if found.required and found.kind not in ("secret", "ssh"):
        problem = "required is not allowed"
    if found.size and found.kind != "tmpfs":
        problem = "size is not allowed"
    if found.sharing and found.kind != "cache":
        problem = "sharing is not allowed"
    if found.env is not None and found.kind != "secret":
        problem = "env is not allowed"
    if found.kind == "secret":
        problem = problem or _secret_problem(found)
    if problem:
        raise node.error(f"invalid mount {mount.text!r}: {problem} for type {found.kind}", mount.text)
    return found


def _secret_problem(found: ResolvedMount) -> str:
    if found.origin:
        return "from is not allowed"
    if found.source and found.id:
        return "source and id together are not allowed"
    if not (found.source or found.target or found.id or found.env):
        return "id or target is needed"
    return ""
