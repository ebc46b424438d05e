"""Docker's JSON spelling of what the API answers (Engine API 1.51). Values in, records out; reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from registry_client.oci.platform import Platform
from registry_client.reference import parse_reference
from runtime.daemon.host import HostFacts
from runtime.events import Changed
from runtime.images.image import Image, Removed, Untagged
from runtime.images.inspect import Step
from runtime.images.prune import created_seconds, seconds_of

Json = dict[str, Any]
PLATFORM = "pipe"


def progress_record(status: str, item: str, current: int, total: int) -> Json:
    """How far one layer is: JSONMessage with what a terminal shows of it."""
    detail = {"current": current, "total": total} if total else {"current": current}
    return {"status": status, "progressDetail": detail, "progress": _bar(current, total), "id": item}


def _bar(current: int, total: int) -> str:
    shown = f"{_size(current)}/{_size(total)}" if total else _size(current)
    if not total:
        return shown
    filled = min(50, 50 * current // total)
    return f"[{'=' * filled}{'>' if filled < 50 else ''}{' ' * (49 - filled)}]  {shown}"


def _size(count: int) -> str:
    """Docker's short form: powers of 1000, four digits."""
    size, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.4g}{unit}"


def version_record(facts: HostFacts, newest: str, oldest: str) -> Json:
    """SystemVersion. What it is written in has no Go version; clients show the field, so it says what we are."""
    common = {
        "ApiVersion": newest,
        "MinAPIVersion": oldest,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": facts.architecture,
        "KernelVersion": facts.kernel,
        "BuildTime": "",
    }
    details = {name: value for name, value in common.items() if value} | {"Experimental": "false"}
    component = {"Name": "Engine", "Version": facts.version, "Details": details}
    return {"Platform": {"Name": PLATFORM}, "Components": [component], "Version": facts.version, **common}


def info_record(
    facts: HostFacts,
    *,
    identity: str,
    root: str,
    driver: str,
    images: int,
    containers: Mapping[str, int],
    forwards: bool,
    open_files: int,
    threads: int,
    listeners: int,
    now: str,
    insecure: Iterable[str],
) -> Json:
    """SystemInfo; `containers` counts by status."""
    controllers = facts.controllers
    has_cpu = "cpu" in controllers
    return {
        "ID": identity,
        "Containers": sum(containers.values()),
        "ContainersRunning": containers.get("running", 0),
        "ContainersPaused": containers.get("paused", 0),
        "ContainersStopped": sum(
            count for status, count in containers.items() if status not in ("running", "paused")
        ),
        "Images": images,
        "Driver": driver,
        "DriverStatus": [],
        "DockerRootDir": root,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "none"],
        },
        "MemoryLimit": "memory" in controllers,
        "SwapLimit": facts.swap_limit,
        "KernelMemoryTCP": False,
        "CpuCfsPeriod": has_cpu,
        "CpuCfsQuota": has_cpu,
        "CPUShares": has_cpu,
        "CPUSet": "cpuset" in controllers,
        "PidsLimit": "pids" in controllers,
        "OomKillDisable": not facts.unified,
        "IPv4Forwarding": forwards,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": False,
        "NFd": open_files,
        "NGoroutines": threads,
        "SystemTime": now,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if facts.unified else "1",
        "NEventsListener": listeners,
        "KernelVersion": facts.kernel,
        "OperatingSystem": facts.system,
        "OSVersion": facts.system_version,
        "OSType": "linux",
        "Architecture": facts.machine,
        "NCPU": facts.processors,
        "MemTotal": facts.memory,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(insecure),
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": facts.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": facts.version,
        "Runtimes": {"pipe": {"path": "pipe"}},
        "DefaultRuntime": "pipe",
        "Swarm": _NO_SWARM,
        "LiveRestoreEnabled": True,  # containers outlive the daemon: each has a shim
        "Isolation": "",
        "InitBinary": "pipe",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "CDISpecDirs": [],
        "Warnings": None,
    }


_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


def _registries(insecure: Iterable[str]) -> Json:
    hosts = {name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure}
    hub = {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}
    return {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "IndexConfigs": {**hosts, "docker.io": hub},
        "Mirrors": None,
    }


# --- images ---------------------------------------------------------------------------------------------------------


def image_summary(image: Image, names: Sequence[str], *, containers: int, shared: int, virtual: bool) -> Json:
    """ImageSummary. `shared` and `containers` are -1 where nobody counted; `virtual` is for clients before 1.44."""
    record = {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": [parse_reference(name).familiar for name in names],
        "RepoDigests": [parse_reference(name).familiar for name in image.repo_digests],
        "Created": int(created_seconds(image)),
        "Size": image.size,
        "SharedSize": shared,
        "Labels": dict(image.config.config.labels) or None,
        "Containers": containers,
    }
    return record | ({"VirtualSize": image.size} if virtual else {})


def image_record(inspected: Json, *, virtual: bool) -> Json:
    """ImageInspect of what `inspect` tells of an image."""
    more: Json = {"DockerVersion": "", "GraphDriver": {"Name": "overlay", "Data": None}}
    if virtual:
        more |= {"VirtualSize": inspected["Size"], "Container": "", "ContainerConfig": None}
    return {**inspected, **more}


def history_records(image: Image, steps: Sequence[Step]) -> list[Json]:
    """HistoryResponseItem, last step first. Only the image itself has an id."""
    names = [parse_reference(tag).familiar for tag in image.tags]
    return [
        {
            "Id": image.id if number == 0 else "<missing>",
            "Created": int(seconds_of(step.created)),
            "CreatedBy": step.created_by,
            "Tags": (names or None) if number == 0 else None,
            "Size": step.size,
            "Comment": step.comment,
        }
        for number, step in enumerate(steps)
    ]


def removed_record(removed: Removed) -> Json:
    """ImageDeleteResponseItem."""
    return {"Untagged": removed.reference} if isinstance(removed, Untagged) else {"Deleted": removed.digest}


def distribution_record(media_type: str, digest: str, size: int, platforms: Iterable[Platform]) -> Json:
    """DistributionInspect."""
    return {
        "Descriptor": {"mediaType": media_type, "digest": digest, "size": size},
        "Platforms": [platform_record(each) for each in platforms],
    }


def platform_record(platform: Platform) -> Json:
    record = {"architecture": platform.architecture, "os": platform.os}
    return record | ({"variant": platform.variant} if platform.variant else {})


# --- events ---------------------------------------------------------------------------------------------------------


def event_record(event: Changed, old: bool) -> Json:
    """EventMessage; `old` adds what clients before 1.22 read, and docker 28 still sends for containers and images."""
    record: Json = {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {
            "ID": event.id,
            "Attributes": {"name": event.id, **event.attributes}
            if event.kind == "image"
            else dict(event.attributes),
        },
        "scope": "local",
        "time": int(event.time),
        "timeNano": int(event.time * 1e9),
    }
    if old and event.kind in ("container", "image"):
        record = {"status": event.action, "id": event.id, **record}
        if event.kind == "container" and "image" in event.attributes:
            record["from"] = event.attributes["image"]
    return record
