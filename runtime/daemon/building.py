"""`POST /build`, `/build/prune` and `/build/cancel`: the classic builder's API (FEATURES B-23, E-27, E-28).

The context is put down in the store before anything else happens, so memory stays flat; it goes with the request. What
a parameter means is said here, in Docker's words where clients read them; who builds is handed in.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from registry_client.credentials import Credentials
from registry_client.oci.config import ContainerConfig
from registry_client.oci.platform import Platform, parse_platform
from registry_client.reference import parse_reference
from registry_client.values import field, frozen
from runtime.cancel import Cancel
from runtime.daemon.api import Route
from runtime.daemon.asked import flag, json_of, number, time_of
from runtime.daemon.engine import Engine
from runtime.daemon.logins import sent_logins
from runtime.daemon.streams import Tell, stream
from runtime.errors import HostFault, InvalidInput, Unsupported
from runtime.http.messages import HttpError, Request, Response, json_response
from runtime.store.durable import remove_tree
from runtime.store.owners import own_token

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


class ImageBuilder(Protocol):
    """What this package needs of a builder."""

    def build(self, asked: BuildAsked, credentials: Credentials, tell: Tell, cancel: Cancel) -> None:
        """Build; everything a client reads goes to `tell`."""
        ...

    def prune(self, asked: PruneAsked) -> tuple[list[str], int]:
        """The ids of what went, and the bytes that are free now."""
        ...

    def config_of(self, changes: Sequence[str]) -> ContainerConfig:
        """What the instructions of `changes` make of an empty config."""
        ...

    def cached(self) -> list[dict[str, Any]]:
        """What the build cache holds, in the words of `/system/df`."""
        ...


class Building:
    def __init__(self, engine: Engine, builder: ImageBuilder) -> None:
        self._engine, self._builder = engine, builder
        self._lock = threading.Lock()
        self._running: dict[str, Cancel] = {}  # by the id a client gave its build

    def routes(self) -> Iterable[Route]:
        yield "POST", "/build", self.build
        yield "POST", "/build/prune", self.prune
        yield "POST", "/build/cancel", self.cancel

    def build(self, request: Request) -> Response:
        asked = parse_build(request)
        credentials = sent_logins(request)
        place = _Place(self._engine.store.root)
        try:
            if not asked.remote:
                place.fill(request)
        except BaseException:
            place.remove()
            raise

        def work(tell: Tell, cancel: Cancel) -> None:
            with self._known(request.argument("buildid"), cancel):
                try:
                    self._builder.build(place.of(asked), credentials, tell, cancel)
                finally:
                    place.remove()

        return stream(request, work, self._engine.cancel)

    @contextmanager
    def _known(self, name: str, cancel: Cancel) -> Iterator[None]:
        with self._lock:
            self._running[name] = cancel
        try:
            yield
        finally:
            with self._lock:
                if self._running.get(name) is cancel:
                    del self._running[name]

    def cancel(self, request: Request) -> Response:
        name = request.argument("id")
        if not name:
            raise HttpError(400, "build ID not provided")
        with self._lock:
            found = self._running.get(name)
        if found is not None:
            found.cancel("the build was cancelled")
        return Response(200)

    def prune(self, request: Request) -> Response:
        gone, freed = self._builder.prune(parse_prune(request))
        return json_response({"CachesDeleted": gone or None, "SpaceReclaimed": freed})


class _Place:
    """Where a context is put down: among the drafts, under our name, so that after a kill it is known for garbage."""

    def __init__(self, root: str) -> None:
        self._directory = os.path.join(root, "drafts", f"{os.urandom(8).hex()}.{own_token()}")

    def fill(self, request: Request) -> None:
        try:
            os.mkdir(self._directory, 0o700)
            with open(self._path, "xb") as file:
                for chunk in request.body:
                    file.write(chunk)
        except OSError as error:
            raise HostFault(f"cannot take the context in: {error.strerror or error}") from error

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, "context")

    def of(self, asked: BuildAsked) -> BuildAsked:
        from registry_client.values import replace

        return asked if asked.remote else replace(asked, archive=self._path)

    def remove(self) -> None:
        if os.path.isdir(self._directory):
            remove_tree(self._directory)


# --- parameters -----------------------------------------------------------------------------------------------------


def parse_build(request: Request) -> BuildAsked:
    """The query of `POST /build`. Numbers that are none count as not given, as docker has it."""
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
        for each in json.loads(text) if text.startswith("[") else filter(None, text.split(",")):
            name, colon, address = str(each).partition("=" if "=" in each else ":")
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
    from runtime.daemon.asked import filters_of

    known = ("until", "unused-for", "id", "type", "parent", "description", "inuse", "shared", "private")
    found = filters_of(request, known)
    if "unused-for" in found:
        found.setdefault("until", found["unused-for"])
    for name in ("parent", "description", "inuse", "shared", "private"):
        if name in found:
            raise InvalidInput(f"filter {name!r} is not supported here", hint="use until, id or type")
    return found
