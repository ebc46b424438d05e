"""Docker's JSON spelling of what the API answers (Engine API 1.51). Values in, records out; reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runtime.daemon.host import HostFacts

Json = dict[str, Any]
PLATFORM = "pipe"


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
    time: str,
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
        "SystemTime": time,
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
