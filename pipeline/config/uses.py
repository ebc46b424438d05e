"""Shapes of what a container uses of others: services it waits for, networks, secrets; and how its health is probed."""

from __future__ import annotations

from typing import Any

from pipeline.config import container as values
from pipeline.config.document import Mapping, Node, Sequence, kind_of
from pipeline.config.scalars import Choice, Duration, Flag, Integer, Name, Text
from pipeline.config.shapes import Convert, Json, Key, ListOf, Reader, Record, Shape
from pipeline.config.words import Command
from registry_client.oci.config import Healthcheck
from runtime.errors import InvalidInput
from runtime.spans import Span


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _health_test(node_value: tuple[str, ...]) -> tuple[str, ...]:
    if node_value and node_value[0] in ("NONE", "CMD", "CMD-SHELL"):
        return node_value
    raise ValueError("a health check test list starts with `CMD`, `CMD-SHELL` or `NONE`")


class HealthTest(Shape[tuple[str, ...]]):
    def parse(self, node: Node, reader: Reader) -> tuple[str, ...]:
        if isinstance(node, Sequence):
            return Convert(ListOf(Text()), _health_test).parse(node, reader)
        return ("CMD-SHELL", Text().parse(node, reader))

    def schema(self) -> Json:
        return Command().schema()


_NS = Convert(Duration(), _nanoseconds)
HEALTHCHECK: Record[Healthcheck] = Record(
    lambda *, disable=False, **given: Healthcheck(("NONE",)) if disable else Healthcheck(**given),
    {
        "test": Key(HealthTest(), "a shell line, or a list that starts with CMD or CMD-SHELL"),
        "interval": Key(_NS, "time between probes"),
        "timeout": Key(_NS, "time for one probe"),
        "retries": Key(Integer(), "failures in a row until unhealthy"),
        "start_period": Key(_NS, "time in which failures do not count"),
        "start_interval": Key(_NS, "time between probes in the start period"),
        "disable": Key(Flag(), "no health check, whatever the image says"),
    },
    what="a healthcheck",
)

_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class DependsOn(Shape[tuple[values.Dependency, ...]]):
    def parse(self, node: Node, reader: Reader) -> tuple[values.Dependency, ...]:
        if isinstance(node, Mapping):
            return tuple(self._long(entry.key, entry.key_span).parse(entry.value, reader) for entry in node)
        if isinstance(node, Sequence):
            return tuple(values.Dependency(Name().parse(item, reader), span=item.span) for item in node.items)
        raise InvalidInput(f"expected a list or a mapping of services, not {kind_of(node)}", node.span)

    def _long(self, name: str, span: Span) -> Record[values.Dependency]:
        keys = {
            "condition": Key(
                Convert(Choice(tuple(_CONDITIONS)), _CONDITIONS.__getitem__),
                "what to wait for",
                required=True,
            ),
            "required": Key(Flag(), "false: may be missing"),
            "restart": Key(Flag(), "restart with it"),
        }
        return Record(values.Dependency, keys, given=(("service", name), ("span", span)), what="a dependency")

    def schema(self) -> Json:
        long = {"type": "object", "additionalProperties": self._long("", values.NOWHERE).schema()}
        return {"anyOf": [{"type": "array", "items": {"type": "string"}}, long]}


class NetworkUses(Shape[tuple[values.NetworkUse, ...]]):
    def parse(self, node: Node, reader: Reader) -> tuple[values.NetworkUse, ...]:
        if isinstance(node, Mapping):
            return tuple(self._long(entry.key).parse(entry.value, reader) for entry in node)
        return tuple(values.NetworkUse(name) for name in ListOf(Name()).parse(node, reader))

    def _long(self, name: str) -> Record[values.NetworkUse]:
        keys = {
            "aliases": Key(ListOf(Text()), "further names there"),
            "ipv4_address": Key(Text(), "fixed address"),
            "mac_address": Key(Text(), "fixed hardware address"),
            "priority": Key(Convert(Integer(-1000), lambda _: None), "accepted, without effect", "_ignored"),
        }
        return Record(
            lambda *, _ignored=None, **given: values.NetworkUse(**given),
            keys,
            given=(("name", name),),
            null=True,
            what="a network",
        )

    def schema(self) -> Json:
        long = {"type": "object", "additionalProperties": self._long("").schema()}
        return {"anyOf": [{"type": "array", "items": {"type": "string"}}, long]}


SECRET_SOURCE: dict[str, Key] = {
    "env": Key(Name(r"[A-Za-z_][A-Za-z0-9_]*", "a variable name"), "the variable that holds it"),
    "environment": Key(Name(r"[A-Za-z_][A-Za-z0-9_]*", "a variable name"), "Compose's word for `env`", "env"),
    "file": Key(Text(later=False), "the file that holds it"),
    "command": Key(Command(), "the command that prints it"),
    "required": Key(Flag(), "false: may be missing, then it is empty"),
}


def secret_source(
    name: str, span: Span, more: dict[str, Key] | None = None, build: Any = values.SecretSpec
) -> Record[Any]:
    """Where a secret comes from."""

    def check(spec: values.SecretSpec, node: Mapping, reader: Reader) -> None:
        if sum(map(bool, (spec.env, spec.file, spec.command))) != 1:
            hint = "where it comes from: `env: NAME`, `file: PATH` or `command: [...]`"
            reader.problems.append(
                InvalidInput(f"secret `{name}` needs exactly one source", node.span, hint=hint)
            )

    given = (("name", name), ("span", span))
    return Record(build, {**SECRET_SOURCE, **(more or {})}, given=given, what=f"secret `{name}`", check=check)


class SecretUses(Shape[tuple[values.SecretUse, ...]]):
    """`[token]`, `[{secret: token, target: /run/x, env: TOKEN, mode: 0400}]`, or on the spot `{token: {file: PATH}}`."""

    def parse(self, node: Node, reader: Reader) -> tuple[values.SecretUse, ...]:
        if isinstance(node, Mapping):
            uses = []
            for entry in node:
                source = reader.attempt(secret_source(entry.key, entry.key_span), entry.value)
                if source is not None:
                    uses.append(values.SecretUse(entry.key, span=entry.key_span, source=source))
            return tuple(uses)
        if not isinstance(node, Sequence):
            raise InvalidInput(f"expected a list of secrets, not {kind_of(node)}", node.span)
        found = [reader.attempt(_SecretItem(), item) for item in node.items]
        return tuple(use for use in found if use is not None)

    def schema(self) -> Json:
        items = {"anyOf": [{"type": "string"}, _SecretItem().long(values.NOWHERE).schema()]}
        on_the_spot = {"type": "object", "additionalProperties": secret_source("", values.NOWHERE).schema()}
        return {"anyOf": [{"type": "array", "items": items}, on_the_spot]}


class _SecretItem(Shape[values.SecretUse]):
    def parse(self, node: Node, reader: Reader) -> values.SecretUse:
        if isinstance(node, Mapping):
            return self.long(node.span).parse(node, reader)
        return values.SecretUse(Name().parse(node, reader), span=node.span)

    def long(self, span: Span) -> Record[values.SecretUse]:
        keys = {
            "secret": Key(Name(), "an entry of `secrets:`", "name"),
            "source": Key(Name(), "Compose's word for `secret`", "name"),
            "target": Key(Text(later=False), "path, or a name in /run/secrets"),
            "env": Key(
                Text(r"[A-Za-z_][A-Za-z0-9_]*", "a variable name", later=False),
                "hand it over in this variable instead",
            ),
            "mode": Key(
                Convert(Text(r"0?[0-7]{3,4}", "a mode", later=False), lambda text: int(text, 8)),
                "permission bits, octal",
            ),
        }
        return Record(values.SecretUse, keys, given=(("span", span),), what="a secret")
