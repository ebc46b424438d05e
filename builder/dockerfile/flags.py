"""The flags of an instruction: `--name=value`, checked against a table of what the instruction knows (FEATURES A-8)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from builder.dockerfile.nodes import Node
from runtime.errors import did_you_mean


class Kind(StrEnum):
    TEXT = "text"
    BOOLEAN = "boolean"
    LIST = "list"  # may be given several times


class Flags:
    """The flags given to one instruction."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        return self._values[name][0] if name in self._values else ""

    def texts(self, name: str) -> tuple[str, ...]:
        return self._values.get(name, ())

    def boolean(self, name: str) -> bool:
        return self.text(name) == "true"

    def optional(self, name: str) -> bool | None:
        return self.boolean(name) if name in self._values else None


def parse_flags(node: Node, known: Mapping[str, Kind]) -> Flags:
    """Check every flag of `node`; DockerfileError points at the one that is wrong."""
    values: dict[str, tuple[str, ...]] = {}
    for flag in node.flags:
        name, equals, value = flag[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise node.error(
                f"unknown flag --{name} for {node.name}", f"--{name}", hint=_suggest(name, node, known)
            )
        if kind is Kind.BOOLEAN:
            value = value.lower() if equals else "true"
            if value not in ("true", "false"):
                raise node.error(f"--{name} must be true or false, not {value!r}", f"--{name}")
        elif not equals:
            raise node.error(f"missing a value for flag --{name}", f"--{name}", hint=f"write --{name}=value")
        if name in values and kind is not Kind.LIST:
            raise node.error(f"duplicate flag --{name}", f"--{name}", hint="give it once")
        values[name] = (*values.get(name, ()), value)
    return Flags(values)


def _suggest(name: str, node: Node, known: Mapping[str, Kind]) -> str:
    if hint := did_you_mean(name, known):
        return hint.replace("`", "`--", 1)
    return (
        f"{node.name} knows " + ", ".join(f"--{flag}" for flag in known)
        if known
        else f"{node.name} has no flags"
    )
