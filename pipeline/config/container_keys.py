"""The table of Compose's container keys (FEATURES F2): which there are, what they take, and what becomes of them.

`CONTAINER` is shared by stages, services and deployments; `SERVICE` adds what only a service has. Keys of the Compose
specification that no engine of ours can honour are errors that say so, never silently ignored.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from pipeline.config import container as values
from pipeline.config.document import Mapping, Node, Scalar, Sequence, kind_of
from pipeline.config.ports import bindings, parse_port
from pipeline.config.shapes import (
    Choice,
    Convert,
    Duration,
    Either,
    Flag,
    Integer,
    Json,
    Key,
    ListOf,
    MapOf,
    Name,
    Number,
    Reader,
    Record,
    Shape,
    Size,
    Text,
    scalar,
)
from pipeline.config.units import parse_size
from registry_client.oci.config import Healthcheck
from registry_client.reference import parse_reference
from runtime.containers.spec import Mount, PortBinding, RestartPolicy, Rlimit
from runtime.errors import InvalidInput
from runtime.spans import Span

_ENV_NAME = r"[^=\0\s]+"


class Command(Shape[tuple[str, ...]]):
    """A list, or a string split by the shell's quoting rules (no shell runs it)."""

    def parse(self, node: Node, reader: Reader) -> tuple[str, ...]:
        if isinstance(node, Sequence):
            return ListOf(Text()).parse(node, reader)
        text = reader.text(scalar(node, self))
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            hint = 'a list needs no quoting: `[sh, -c, "echo it\'s fine"]`'
            raise InvalidInput(
                f"cannot split {text!r} into words: {str(error).lower()}", node.span, hint=hint
            ) from error

    def schema(self) -> Json:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": Text().schema()}, {"type": "null"}]}

    def expects(self) -> str:
        return "a command (a text or a list)"


class Environment(Shape[tuple[tuple[str, str | None], ...]]):
    """`{NAME: value}` or `[NAME=value, NAME]`; without a value it is taken from outside where it is set."""

    def parse(self, node: Node, reader: Reader) -> tuple[tuple[str, str | None], ...]:
        if isinstance(node, Mapping):
            return tuple(
                (self._name(entry.key, entry.key_span), self._value(entry.value, reader)) for entry in node
            )
        if isinstance(node, Sequence):
            found: dict[str, str | None] = {}
            for item in node.items:
                name, equals, value = reader.text(scalar(item, Text())).partition("=")
                found[self._name(name, item.span)] = value if equals else None
            return tuple(found.items())
        if isinstance(node, Scalar) and node.null:
            return ()
        raise InvalidInput(f"expected a mapping or a list of `NAME=value`, not {kind_of(node)}", node.span)

    def _name(self, name: str, span: Span) -> str:
        if not re.fullmatch(_ENV_NAME, name):
            raise InvalidInput(f"{name!r} is not a variable name", span)
        return name

    def _value(self, node: Node, reader: Reader) -> str | None:
        return None if isinstance(node, Scalar) and node.null else Text().parse(node, reader)

    def schema(self) -> Json:
        value = {"type": ["string", "number", "boolean", "null"]}
        return {
            "anyOf": [
                {"type": "object", "additionalProperties": value},
                {"type": "array", "items": {"type": "string"}},
                {"type": "null"},
            ]
        }

    def expects(self) -> str:
        return "variables"


class Pairs(Shape[tuple[tuple[str, str], ...]]):
    """Like Environment, but a missing value is the empty text; `separators` for the list form, the first found counts."""

    def __init__(self, separators: str = "=") -> None:
        self.separators = separators

    def parse(self, node: Node, reader: Reader) -> tuple[tuple[str, str], ...]:
        if isinstance(node, Mapping):
            return tuple((entry.key, Text(null=True).parse(entry.value, reader)) for entry in node)
        return tuple(self._split(text) for text in ListOf(Text()).parse(node, reader))

    def _split(self, text: str) -> tuple[str, str]:
        separator = next((mark for mark in self.separators if mark in text), self.separators[0])
        key, _, value = text.partition(separator)
        return key, value

    def schema(self) -> Json:
        value = {"type": ["string", "number", "boolean", "null"]}
        return {
            "anyOf": [
                {"type": "object", "additionalProperties": value},
                {"type": "array", "items": {"type": "string"}},
                {"type": "null"},
            ]
        }

    def expects(self) -> str:
        return "a mapping or a list"


_TYPES = ("bind", "volume", "tmpfs")


def parse_volume(text: str) -> Mount:
    """The short form `[SOURCE:]TARGET[:OPTIONS]`; a source that looks like a path is a bind."""
    parts = text.split(":")
    if len(parts) == 1:
        return _volume_mount("", parts[0], ())
    if len(parts) > 3:
        raise ValueError(f"invalid volume {text!r}: write `SOURCE:TARGET[:ro]`")
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    unknown = [
        option
        for option in options
        if option not in ("ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent")
    ]
    unknown = [option for option in unknown if option.lstrip("r") not in ("private", "shared", "slave")]
    if unknown:
        raise ValueError(f"unknown volume option {unknown[0]!r} in {text!r}")
    return _volume_mount(parts[0], parts[1], options)


def _volume_mount(source: str, target: str, options: tuple[str, ...]) -> Mount:
    if not target.startswith("/"):
        raise ValueError(f"volume target {target!r} is not an absolute path")
    is_path = source.startswith(("/", ".", "~"))
    if source and not is_path and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", source):
        raise ValueError(f"{source!r} is neither a path (start it with `./`) nor a volume name")
    propagation = [option for option in options if option.lstrip("r") in ("private", "shared", "slave")]
    return Mount(
        type="bind" if is_path else "volume",
        target=target,
        source=source,
        readonly="ro" in options,
        copy_up="nocopy" not in options,
        create_source=is_path,
        propagation=propagation[0] if propagation else "rprivate",
    )


def _long_mount(**given: Any) -> Mount:
    kind = given.get("type", "volume")
    target = given.get("target", "")
    if kind == "bind" and not given.get("source"):
        raise ValueError(f"bind mount on {target} needs a `source`")
    if not target.startswith("/"):
        raise ValueError(f"volume target {target!r} is not an absolute path")
    bind = dict(given.pop("bind", ()))
    return Mount(create_source=kind == "bind" and bind.pop("create_source", True), **bind, **given)


def _as_pairs(**given: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(given.items())


class _Built(Shape[Any]):
    """A record whose builder may refuse with a ValueError."""

    def __init__(self, record: Record[Any]) -> None:
        self.record = record

    def parse(self, node: Node, reader: Reader) -> Any:
        try:
            return self.record.parse(node, reader)
        except ValueError as error:
            raise InvalidInput(str(error), node.span) from error

    def schema(self) -> Json:
        return self.record.schema()

    def expects(self) -> str:
        return self.record.expects()


_BIND = Record(
    _as_pairs,
    {
        "create_host_path": Key(Flag(), "make a missing host directory", "create_source"),
        "propagation": Key(
            Choice(("rprivate", "private", "rshared", "shared", "rslave", "slave")), "mount propagation"
        ),
    },
)
_LONG_VOLUME = _Built(
    Record(
        lambda *, volume=(), tmpfs=(), **given: _long_mount(**dict(volume), **dict(tmpfs), **given),
        {
            "type": Key(Choice(_TYPES), "kind of mount", required=True),
            "source": Key(Text(), "host path or volume name"),
            "target": Key(Text(later=False), "path in the container", required=True),
            "read_only": Key(Flag(), "no writes", "readonly"),
            "bind": Key(_BIND, "options of a bind"),
            "volume": Key(
                Record(
                    lambda **given: tuple(given.items()),
                    {
                        "nocopy": Key(
                            Convert(Flag(), lambda flag: not flag),
                            "do not fill a new volume from the image",
                            "copy_up",
                        ),
                        "subpath": Key(Text(), "path inside the volume"),
                    },
                ),
                "options of a volume",
            ),
            "tmpfs": Key(
                Record(
                    lambda **given: tuple(given.items()),
                    {
                        "size": Key(Size(), "most bytes"),
                        "mode": Key(Convert(Text(), lambda text: int(text, 8)), "permission bits, octal"),
                    },
                ),
                "options of a tmpfs",
            ),
        },
        what="a volume",
    )
)
VOLUMES: Shape[Any] = ListOf(Either(Convert(Text(), parse_volume), _LONG_VOLUME))


def _tmpfs(text: str) -> Mount:
    target, _, options = text.partition(":")
    given = dict(option.partition("=")[::2] for option in options.split(",") if option)
    if not target.startswith("/"):
        raise ValueError(f"tmpfs target {target!r} is not an absolute path")
    return Mount(
        type="tmpfs",
        target=target,
        size=parse_size(given["size"]) if "size" in given else 0,
        mode=int(given.get("mode", "1777"), 8),
        readonly="ro" in given,
    )


_LONG_PORT = _Built(
    Record(
        lambda *, target, published="", host_ip="0.0.0.0", protocol="tcp", **_: bindings(
            target, published, host_ip, protocol
        ),
        {
            "target": Key(Text(later=False), "container port", required=True),
            "published": Key(Text(later=False), "host port or range"),
            "host_ip": Key(Text(later=False), "address to listen on"),
            "protocol": Key(Choice(("tcp", "udp", "sctp")), "protocol"),
            "mode": Key(Choice(("host", "ingress")), "accepted; both mean host here"),
            "name": Key(Text(), "for people"),
            "app_protocol": Key(Text(), "for people"),
        },
        what="a port",
    )
)


def _flatten(groups: tuple[tuple[PortBinding, ...], ...]) -> tuple[PortBinding, ...]:
    return tuple(binding for group in groups for binding in group)


PORTS: Shape[tuple[PortBinding, ...]] = Convert(
    ListOf(Either(Convert(Text(later=False), parse_port), _LONG_PORT)), _flatten
)


class Ulimits(Shape[tuple[Rlimit, ...]]):
    _PAIR = Record(
        Rlimit,
        {"soft": Key(Integer(-1), "soft", required=True), "hard": Key(Integer(-1), "hard", required=True)},
    )

    def parse(self, node: Node, reader: Reader) -> tuple[Rlimit, ...]:
        if not isinstance(node, Mapping):
            raise InvalidInput(f"expected a mapping, not {kind_of(node)}", node.span)
        found = []
        for entry in node:
            if isinstance(entry.value, Mapping):
                shape = Record(Rlimit, self._PAIR.keys, given=(("name", entry.key),))
                found.append(shape.parse(entry.value, reader))
            else:
                number = Integer(-1).parse(entry.value, reader)
                found.append(Rlimit(name=entry.key, soft=number, hard=number))
        return tuple(found)

    def schema(self) -> Json:
        return {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "integer"}, self._PAIR.schema()]},
        }


def _device(text: str) -> tuple[str, str, str]:
    host, _, rest = text.partition(":")
    inside, _, rights = rest.partition(":")
    if not host.startswith("/"):
        raise ValueError(f"device {text!r} is not a path")
    if inside and not inside.startswith("/"):
        inside, rights = "", inside
    return host, inside or host, rights or "rwm"


def parse_restart(text: str) -> RestartPolicy:
    name, _, count = text.partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure", "on-unhealthy") or (
        count and not count.isdigit()
    ):
        raise ValueError(
            f"invalid restart policy {text!r}: use no, always, unless-stopped, on-failure[:N] or on-unhealthy"
        )
    return RestartPolicy(name=name, maximum=int(count or 0))


def parse_hosts(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    for name, address in pairs:
        if not name or not address:
            raise ValueError(f"invalid host {name!r}: write `NAME=ADDRESS`")
    return tuple((name, address.strip("[]")) for name, address in pairs)


class EnvFiles(Shape[tuple[values.EnvFile, ...]]):
    def parse(self, node: Node, reader: Reader) -> tuple[values.EnvFile, ...]:
        items = node.items if isinstance(node, Sequence) else (node,)
        return tuple(self._one(item, reader) for item in items)

    def _one(self, node: Node, reader: Reader) -> values.EnvFile:
        if not isinstance(node, Mapping):
            return values.EnvFile(Text(later=False).parse(node, reader), span=node.span)
        return self._long(node.span).parse(node, reader)

    def _long(self, span: Span) -> Record[values.EnvFile]:
        keys = {
            "path": Key(Text(later=False), "the file", required=True),
            "required": Key(Flag(), "false: may be missing"),
            "format": Key(Convert(Choice(("raw",)), lambda _: True), "raw: no quotes, no variables", "raw"),
        }
        return Record(values.EnvFile, keys, given=(("span", span),))

    def schema(self) -> Json:
        one = {"anyOf": [{"type": "string"}, self._long(values.NOWHERE).schema()]}
        return {"anyOf": [*one["anyOf"], {"type": "array", "items": one}]}


_PULL = r"(always|never|missing|if_not_present|build|daily|weekly|every_.+)"
_LOGGING = Record(
    values.Logging,
    {
        "driver": Key(Choice(("json-file", "local", "none")), "where logs go"),
        "options": Key(Pairs(), "driver options"),
    },
)

CONTAINER: dict[str, Key] = {
    "image": Key(
        Text(what="an image name", check=parse_reference), "an entry of `images:`, else a reference"
    ),
    "command": Key(Command(), "replaces the image's CMD"),
    "entrypoint": Key(Command(), "replaces the image's ENTRYPOINT"),
    "environment": Key(Environment(), "variables", "env"),
    "env_file": Key(EnvFiles(), "files with variables; `environment` wins"),
    "user": Key(Text(), "user[:group] of the process"),
    "group_add": Key(ListOf(Text()), "further groups", "groups"),
    "working_dir": Key(Text(), "directory of the process"),
    "hostname": Key(Text(), "host name inside"),
    "domainname": Key(Text(), "domain name inside"),
    "platform": Key(Text(later=False), "os/arch of the image"),
    "pull_policy": Key(Text(_PULL, "a pull policy", later=False), "always, missing or never"),
    "tty": Key(Flag(), "give it a terminal"),
    "stdin_open": Key(Flag(), "keep stdin open"),
    "init": Key(Flag(), "a small init as pid 1"),
    "volumes": Key(VOLUMES, "mounts, short or long"),
    "tmpfs": Key(ListOf(Convert(Text(later=False), _tmpfs), single=True), "memory file systems"),
    "read_only": Key(Flag(), "read-only root file system"),
    "network_mode": Key(
        Text(r"none|host|bridge|service:.+|container:.+", "a network mode"), "none, host, bridge"
    ),
    "dns": Key(ListOf(Text(), single=True), "name servers"),
    "dns_search": Key(ListOf(Text(), single=True), "search domains"),
    "dns_opt": Key(ListOf(Text()), "resolver options", "dns_options"),
    "extra_hosts": Key(Convert(Pairs("=:"), parse_hosts), "lines of /etc/hosts"),
    "expose": Key(ListOf(Text(r"\d+(-\d+)?(/(tcp|udp))?", "a port")), "ports for other containers"),
    "cap_add": Key(ListOf(Text()), "capabilities to add"),
    "cap_drop": Key(ListOf(Text()), "capabilities to drop"),
    "privileged": Key(Flag(), "no isolation but namespaces"),
    "security_opt": Key(ListOf(Text()), "no-new-privileges, seccomp=…"),
    "devices": Key(ListOf(Convert(Text(), _device)), "host devices"),
    "ulimits": Key(Ulimits(), "resource limits of processes"),
    "sysctls": Key(Pairs(), "kernel parameters of its namespaces"),
    "pid": Key(Text("host|container:.+|service:.+", "a pid mode"), "pid namespace", "pid_mode"),
    "ipc": Key(
        Text("host|private|shareable|none|container:.+|service:.+", "an ipc mode"),
        "ipc namespace",
        "ipc_mode",
    ),
    "shm_size": Key(Size(), "size of /dev/shm"),
    "mem_limit": Key(Size(), "most memory"),
    "memswap_limit": Key(Size(), "most memory and swap"),
    "mem_reservation": Key(Size(), "memory kept under pressure"),
    "cpus": Key(Number(), "most cores"),
    "cpu_shares": Key(Integer(), "relative weight"),
    "cpuset": Key(Text(r"[0-9,-]+", "a list of cpus"), "cpus to run on"),
    "pids_limit": Key(Integer(-1), "most processes"),
    "oom_score_adj": Key(Integer(-1000, 1000), "who is killed first"),
    "stop_signal": Key(Text(later=False), "signal that stops it"),
    "stop_grace_period": Key(Duration(), "time to stop before it is killed"),
    "labels": Key(Pairs(), "labels of the container"),
    "logging": Key(_LOGGING, "where its output goes"),
    "runtime": Key(Text(later=False), "crun, runc or a path; native by default"),
}


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


_RESOURCES = {
    "cpus": Key(Number(), "most cores"),
    "memory": Key(Size(), "most memory"),
    "pids": Key(Integer(), "most processes"),
}


def _deploy_keys(*, resources: tuple[tuple[str, Any], ...] = (), **given: Any) -> values.DeployKeys:
    return values.DeployKeys(**dict(resources), **given)


def _resources(
    *, limits: tuple[tuple[str, Any], ...] = (), reservations: tuple[tuple[str, Any], ...] = ()
) -> Any:
    reserved = dict(reservations)
    return (*limits, *((("memory_reservation", reserved["memory"]),) if "memory" in reserved else ()))


DEPLOY: Record[values.DeployKeys] = Record(
    _deploy_keys,
    {
        "replicas": Key(Integer(0, 100), "how many"),
        "resources": Key(
            Record(
                _resources,
                {
                    "limits": Key(Record(_as_pairs, _RESOURCES), "most it may use"),
                    "reservations": Key(Record(_as_pairs, _RESOURCES), "what is kept for it"),
                },
            ),
            "limits",
        ),
    },
    what="`deploy` of a service",
)


def _service(
    *, healthcheck: Healthcheck | None = None, scale: int | None = None, **given: Any
) -> values.ServiceSpec:
    off = healthcheck is not None and healthcheck.test == ("NONE",)
    if scale is not None:
        given["deploy"] = given.get("deploy") or values.DeployKeys(replicas=scale)
    return values.ServiceSpec(healthcheck=None if off else healthcheck, no_healthcheck=off, **given)


SERVICE_ONLY: dict[str, Key] = {
    "ports": Key(PORTS, "ports published on the host, short or long"),
    "depends_on": Key(DependsOn(), "services to wait for"),
    "healthcheck": Key(HEALTHCHECK, "how its health is probed"),
    "networks": Key(NetworkUses(), "networks and names there"),
    "secrets": Key(SecretUses(), "secrets mounted in /run/secrets"),
    "restart": Key(Convert(Text(later=False), parse_restart), "when it is started again"),
    "container_name": Key(Name(), "a name of its own"),
    "profiles": Key(ListOf(Name()), "only with one of these profiles"),
    "deploy": Key(DEPLOY, "replicas and resources"),
    "scale": Key(Integer(0, 100), "how many"),
}
SERVICE: dict[str, Key] = {
    **SERVICE_ONLY,
    **{name: Key(key.shape, key.help, key.attribute, part="container") for name, key in CONTAINER.items()},
}
WAIT = {"wait": Key(Duration(), "how long a stage waits for it to become healthy")}


def service_shape(name: str, span: Span, *, of_stage: bool = False) -> Record[values.ServiceSpec]:
    return Record(
        _service,
        {**SERVICE, **WAIT} if of_stage else SERVICE,
        given=(("name", name), ("span", span)),
        parts={"container": values.ContainerKeys},
        what=f"service `{name}`" if name else "a service",
        check=_needs_image,
    )


def _needs_image(service: values.ServiceSpec, node: Mapping, reader: Reader) -> None:
    if not service.container.image:
        hint = "build it under `images:` and name that image here" if node.get("build") else ""
        reader.problems.append(
            InvalidInput(f"service `{service.name}` needs the key `image`", node.span, hint=hint)
        )


SERVICES: MapOf[values.ServiceSpec] = MapOf(service_shape, service_shape("", values.NOWHERE))
STAGE_SERVICES: MapOf[values.ServiceSpec] = MapOf(
    lambda name, span: service_shape(name, span, of_stage=True),
    service_shape("", values.NOWHERE, of_stage=True),
)
