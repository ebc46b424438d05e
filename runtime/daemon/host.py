"""Facts about this host and this daemon, for `/info` and `/version`. Reads /proc, /sys and the store's identity."""

from __future__ import annotations

import os
import uuid

from registry_client.values import frozen
from runtime.cgroups import hierarchies
from runtime.store.durable import replace_file


@frozen(kw_only=True)
class HostFacts:
    """What does not change while we run. `memory` is bytes; `controllers` are those of the host's control groups."""

    version: str  # of pipe
    kernel: str
    system: str  # as /etc/os-release calls it
    system_version: str
    machine: str  # uname's word: x86_64
    architecture: str  # Docker's: amd64
    name: str
    processors: int
    memory: int
    controllers: frozenset[str]
    unified: bool
    swap_limit: bool


def read_facts(version: str) -> HostFacts:
    from registry_client.oci.platform import host_platform

    uname, release, groups = os.uname(), _os_release(), hierarchies()
    return HostFacts(
        version=version,
        kernel=uname.release,
        system=release.get("PRETTY_NAME", "Linux"),
        system_version=release.get("VERSION_ID", ""),
        machine=uname.machine,
        architecture=host_platform().architecture,
        name=uname.nodename,
        processors=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        controllers=frozenset(name.rpartition("=")[2] for name in groups.by_controller),
        unified=groups.unified,
        swap_limit=_limits_swap(groups.by_controller.get("memory", ""), groups.unified),
    )


def engine_id(root: str) -> str:
    """A name for this store's engine that stays."""
    path = os.path.join(root, "daemon", "id")
    if (known := read_text(path).strip()) != "":
        return known
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    made = str(uuid.uuid4())
    replace_file(path, f"{made}\n".encode(), 0o600)
    return made


def read_text(path: str) -> str:
    """A small file of the host; "" when it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def forwards() -> bool:
    return read_text("/proc/sys/net/ipv4/ip_forward").strip() == "1"


def _os_release() -> dict[str, str]:
    """os-release(5)."""
    text = read_text("/etc/os-release") or read_text("/usr/lib/os-release")
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, _, value in pairs}


def _limits_swap(memory: str, unified: bool) -> bool:
    return unified or os.path.exists(os.path.join(memory, "memory.memsw.limit_in_bytes"))
