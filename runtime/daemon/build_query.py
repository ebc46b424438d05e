"""What `POST /build` and `POST /build/prune` ask for: their queries as values, in Docker's words where clients read them.

Numbers that are none count as not given, as docker has it; what is no JSON, or asks for what the classic builder does not
do, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from registry_client.oci.platform import Platform, parse_platform
from registry_client.reference import parse_reference
from registry_client.values import field, frozen
from runtime.daemon.asked import expecting, filters_of, flag, json_of, number, time_of
from runtime.errors import InvalidInput, Unsupported
from runtime.http.messages import Request

_NETWORKS = ("", "default", "bridge", "none", "host")


@frozen(kw_only=True)
class BuildAsked:
    """One `POST /build`. Sizes are bytes; 0 and "" are "not said". `archive` is the context as it came, `remote` its URL."""

    archive: str = ""
    remote: str = ""
    dockerfile: str = ""
    tags: tuple[str, ...] = ()
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    no_cache: bool = False
    pull: bool = False
    cache_from: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    network: str = "default"
    memory: int = 0
    memory_swap: int = 0
    shm_size: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()  # name, soft, hard
    quiet: bool = False


@frozen(kw_only=True)
class PruneAsked:
    """What of the build cache is to go; None is "not said", sizes are bytes."""

    everything: bool = False
    unused_since: float = 0.0  # seconds since 1970; 0: whenever used last
    ids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    reserved: int | None = None
    max_used: int | None = None
    min_free: int = 0


def parse_build(request: Request) -> BuildAsked:
    """The query of `POST /build`."""
    for name, values in request.query.items():
        if any("\0" in value or "\\u0000" in value for value in values):
            raise InvalidInput(f"a NUL byte in {name}")
    _refuse(request)
    remote = request.argument("remote")
    return BuildAsked(
        remote=remote,
        dockerfile=request.argument("dockerfile"),
        tags=_tags(request.query.get("t", ())),
        target=request.argument("target"),
        arguments=_strings(request, "buildargs", "build args"),
        labels=_strings(request, "labels", "labels"),
        platform=_platform(request.argument("platform")),
        no_cache=flag(request, "nocache"),
        pull=flag(request, "pull"),
        cache_from=_names(json_of(request, "cachefrom", "error reading cache-from")),
        hosts=_hosts(request.query.get("extrahosts", ())),
        network=_network(request.argument("networkmode")),
        memory=number(request, "memory"),
        memory_swap=number(request, "memswap"),
        shm_size=max(0, number(request, "shmsize")),
        cpu_shares=number(request, "cpushares"),
        cpu_quota=number(request, "cpuquota"),
        cpu_period=number(request, "cpuperiod"),
        cpuset_cpus=request.argument("cpusetcpus"),
        cpuset_mems=request.argument("cpusetmems"),
        cgroup_parent=request.argument("cgroupparent"),
        ulimits=_ulimits(json_of(request, "ulimits", "error reading ulimit settings")),
        quiet=flag(request, "q"),
    )


def _refuse(request: Request) -> None:
    """What the classic builder, or this one, does not do."""
    version = request.argument("version")
    if version == "2":
        raise InvalidInput(
            "BuildKit's way to build through /build is not served here",
            hint="build with DOCKER_BUILDKIT=0, or with buildx",
        )
    if version not in ("", "1"):
        raise InvalidInput(f'invalid version "{version}"')
    if flag(request, "squash"):
        raise InvalidInput("squash is only supported with experimental mode")
    if request.argument("securityopt") not in ("", "null", "[]"):
        raise InvalidInput("The daemon on this platform does not support setting security options on build")
    if request.argument("isolation") not in ("", "default"):
        raise InvalidInput(f'invalid isolation "{request.argument("isolation")}": it is for Windows')
    json_of(request, "outputs", "invalid outputs specified")  # for BuildKit; read to refuse what is no JSON
    if request.argument("remote") == "client-session":
        raise Unsupported("a context from a session is for BuildKit", hint="build with DOCKER_BUILDKIT=0")


def _tags(texts: Iterable[str]) -> tuple[str, ...]:
    found = []
    for text in filter(None, texts):
        try:
            reference = parse_reference(text)
        except ValueError as error:
            raise InvalidInput(f"invalid reference format: {error}") from error
        if reference.digest:
            raise InvalidInput("refusing to create a tag with a digest reference")
        found.append(str(reference.or_latest()))
    return tuple(dict.fromkeys(found))


def _strings(request: Request, name: str, called: str) -> dict[str, str]:
    """A map of strings; null is a variable the client has not, which stays unset."""
    record = json_of(request, name, f"error reading {called}")
    if not isinstance(record, dict):
        return {}
    for key, value in record.items():
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"error reading {called}: the value of {key!r} is not a string")
    return {key: value for key, value in record.items() if value is not None}


def _names(record: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in record) if isinstance(record, list) else ()


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    try:
        return parse_platform(text)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _hosts(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`NAME:ADDRESS`; all in one value, as JSON or separated by commas, is seen too."""
    found = []
    for text in texts:
        with expecting("extrahosts"):
            given = json.loads(text) if text.startswith("[") else list(filter(None, text.split(",")))
        for each in map(str, given):
            name, colon, address = each.partition("=" if "=" in each else ":")
            if not name or not colon or not address:
                raise InvalidInput(f'invalid extra host "{each}": want NAME:ADDRESS')
            found.append((name, address.strip("[]")))
    return tuple(found)


def _network(text: str) -> str:
    if text not in _NETWORKS:
        raise InvalidInput(
            f'network mode "{text}" is not supported for builds', hint="want default, none or host"
        )
    return "default" if text in ("", "bridge") else text


def _ulimits(record: Any) -> tuple[tuple[str, int, int], ...]:
    try:
        return tuple((str(each["Name"]), int(each["Soft"]), int(each["Hard"])) for each in record or ())
    except (LookupError, TypeError, ValueError) as error:
        raise InvalidInput("error reading ulimit settings: want a list of Name, Soft and Hard") from error


def parse_prune(request: Request) -> PruneAsked:
    filters = _filters(request)
    reserved = request.argument("reserved-space") or request.argument("keep-storage")
    until = filters.get("until", ())
    return PruneAsked(
        everything=flag(request, "all"),
        unused_since=time_of(until[-1]) if until else 0.0,
        ids=tuple(filters.get("id", ())),
        kinds=tuple(filters.get("type", ())),
        reserved=int(reserved) if reserved.isdigit() and int(reserved) else None,
        max_used=number(request, "max-used-space") or None,
        min_free=number(request, "min-free-space"),
    )


def _filters(request: Request) -> dict[str, list[str]]:
    known = ("until", "unused-for", "id", "type", "parent", "description", "inuse", "shared", "private")
    found = filters_of(request, known)
    if "unused-for" in found:
        found.setdefault("until", found["unused-for"])
    for name in ("parent", "description", "inuse", "shared", "private"):
        if name in found:
            raise InvalidInput(f"filter {name!r} is not supported here", hint="use until, id or type")
    return found
