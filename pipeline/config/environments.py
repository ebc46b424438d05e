"""The table of an environment to deploy to: where its services come from, and when it counts as up."""

from __future__ import annotations

from typing import Any

from pipeline.config.conditions import CONDITION, Needs, with_condition
from pipeline.config.container import NOWHERE
from pipeline.config.container_keys import SERVICES
from pipeline.config.document import Mapping, Node
from pipeline.config.scalars import Choice, Duration, Flag, Integer, Name, Text
from pipeline.config.shapes import Json, Key, ListOf, MapOf, Reader, Record, Shape
from pipeline.config.words import Command, Environment, Pairs
from pipeline.spec import (
    EnvironmentSpec,
    HealthGate,
    NetworkSpec,
    VolumeSpec,
)
from runtime.errors import InvalidInput
from runtime.spans import Span

_HEALTH_KEYS = {
    "http": Key(Text(r"https?://.+", "an http URL"), "this URL must answer"),
    "status": Key(Integer(100, 599), "with this status; any 2xx or 3xx without"),
    "tcp": Key(Text(r".+:\d+", "HOST:PORT"), "this port must accept connections"),
    "exec": Key(Command(), "this command must succeed in `service`"),
    "service": Key(Name(), "where `exec` runs"),
    "timeout": Key(Duration(), "time to become healthy"),
    "interval": Key(Duration(), "time between probes"),
    "soak": Key(Duration(), "how long it must stay healthy"),
}
_HEALTH = Record(HealthGate, _HEALTH_KEYS, what="`health`", spanned=True)


def _network(name: str, span: Span) -> Shape[NetworkSpec]:
    ipam = Record(
        lambda *, config=(), driver="": config[0] if config else {},
        {
            "driver": Key(Text(), "only the default"),
            "config": Key(
                ListOf(Record(dict, {"subnet": Key(Text(), "addresses"), "gateway": Key(Text(), "gateway")})),
                "address ranges",
            ),
        },
    )
    keys = {
        "external": Key(Flag(), "it is there already"),
        "internal": Key(Flag(), "no way out"),
        "name": Key(Name(), "its real name", "real_name"),
        "driver": Key(Choice(("bridge",)), "only bridge", "_driver"),
        "labels": Key(Pairs(), "labels"),
        "ipam": Key(ipam, "addresses"),
    }
    return Record(
        lambda *, _driver="", ipam=None, **g: NetworkSpec(**g, **(ipam or {})),
        keys,
        given=(("name", name),),
        null=True,
        what=f"network `{name}`",
    )


def _volume(name: str, span: Span) -> Shape[VolumeSpec]:
    keys = {
        "external": Key(Flag(), "it is there already"),
        "name": Key(Name(), "its real name", "real_name"),
        "driver": Key(Choice(("local",)), "only local", "_driver"),
        "driver_opts": Key(Pairs(), "type, o, device", "options"),
        "labels": Key(Pairs(), "labels"),
    }
    return Record(
        lambda *, _driver="", **given: VolumeSpec(**given),
        keys,
        given=(("name", name),),
        null=True,
        what=f"volume `{name}`",
    )


NETWORKS = MapOf(_network, _network("", NOWHERE))
VOLUMES = MapOf(_volume, _volume("", NOWHERE))


class Anything(Shape[bool]):
    """Accepted as it is; the deploy says what it cannot do yet."""

    def parse(self, node: Node, reader: Reader) -> bool:
        return True


class ComposePath(Shape[tuple[str, Span]]):
    def parse(self, node: Node, reader: Reader) -> tuple[str, Span]:
        return Text(later=False).parse(node, reader), node.span

    def schema(self) -> Json:
        return {"type": "string"}


_ENVIRONMENT_KEYS = {
    "engine": Key(Text(later=False), "`local`; ssh://, tcp:// and unix:// are not there yet"),
    "compose": Key(ComposePath(), "a compose file with the services"),
    "services": Key(SERVICES, "the services, in Compose's words"),
    "networks": Key(NETWORKS, "networks of the services"),
    "volumes": Key(VOLUMES, "volumes of the services"),
    "env": Key(Environment(), "variables for all services"),
    "needs": Key(Needs(), "environments and stages first; without it, all stages"),
    "approve": Key(Flag(), "ask a person first"),
    "health": Key(_HEALTH, "what must hold before it counts as up"),
    "project": Key(Name(r"[a-z0-9][a-z0-9_-]*", "a project name"), "prefix of its containers"),
    "url": Key(Text(), "where people find it"),
    "timeout": Key(Duration(), "time for the whole deploy"),
    "kubernetes": Key(Anything(), "not there yet"),
    **CONDITION,
}


def environment_shape(name: str, span: Span) -> Shape[EnvironmentSpec]:
    def build(*, compose: tuple[str, Span] = ("", NOWHERE), **given: Any) -> EnvironmentSpec:
        return EnvironmentSpec(compose=compose[0], compose_span=compose[1], **with_condition(given))

    def check(spec: EnvironmentSpec, node: Mapping, reader: Reader) -> None:
        sources = [word for word in ("compose", "services", "kubernetes") if node.entry(word)]
        if len(sources) != 1:
            problem = (
                f"environment `{name}` has {' and '.join(f'`{word}`' for word in sources) or 'no services'}"
            )
            hint = "give it exactly one of `compose: FILE` and `services:`"
            reader.problems.append(InvalidInput(problem, node.span, hint=hint))

    return Record(
        build,
        _ENVIRONMENT_KEYS,
        given=(("name", name), ("span", span)),
        what=f"environment `{name}`",
        check=check,
    )
