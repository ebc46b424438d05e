"""The table of Compose's container keys (FEATURES F2): which there are, what they take, and what becomes of them.

`CONTAINER` is shared by stages, services and deployments; `SERVICE` adds what only a service has. Keys of the Compose
specification that no engine of ours can honour are errors that say so, never silently ignored.
"""

from __future__ import annotations

from typing import Any

from pipeline.config import container as values
from pipeline.config.document import Mapping, Node, Sequence, kind_of
from pipeline.config.mounts import PORTS, VOLUMES, as_pairs, parse_tmpfs
from pipeline.config.scalars import Choice, Duration, Flag, Integer, Name, Number, Size, Text
from pipeline.config.shapes import Convert, Json, Key, ListOf, MapOf, Reader, Record, Shape
from pipeline.config.uses import HEALTHCHECK, DependsOn, NetworkUses, SecretUses
from pipeline.config.words import Command, Environment, Pairs
from registry_client.oci.config import Healthcheck
from registry_client.reference import parse_reference
from runtime.containers.spec import RestartPolicy, Rlimit
from runtime.errors import InvalidInput
from runtime.spans import Span


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
    "tmpfs": Key(ListOf(Convert(Text(later=False), parse_tmpfs), single=True), "memory file systems"),
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
                    "limits": Key(Record(as_pairs, _RESOURCES), "most it may use"),
                    "reservations": Key(Record(as_pairs, _RESOURCES), "what is kept for it"),
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
