"""What every container gets unless it is asked otherwise: Docker's defaults (moby, daemon/pkg/oci/defaults.go).

Functions return fresh values that the caller may change; the only fact of the host in them is how many processors it has.
"""

from __future__ import annotations

import os
from typing import Any

from runtime.sandbox.capabilities import BITS

Json = dict[str, Any]

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)
ALL_CAPABILITIES = tuple(BITS)
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 64 << 20


def masked_paths(processors: int | None = None) -> list[str]:
    """With one path per processor: its thermal throttling counters tell neighbours what others compute (moby 2024)."""
    processors = os.cpu_count() or 0 if processors is None else processors
    throttles = (f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in range(processors))
    return [*MASKED_PATHS, *throttles]


def mounts(shm_size: int = SHM_SIZE) -> list[Json]:
    """/proc, /dev, /dev/pts, /sys, /sys/fs/cgroup, /dev/mqueue, /dev/shm."""
    closed = ["nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", "proc", closed),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", [*closed, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*closed, "ro"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", closed),
        _mount("/dev/shm", "tmpfs", "shm", [*closed, "mode=1777", f"size={shm_size}"]),
    ]


def _mount(target: str, kind: str, source: str, options: list[str]) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def device_rules() -> list[Json]:
    """Deny all, then what the default nodes, pseudo-terminals and mknod itself need."""
    allowed = [
        ("c", -1, -1, "m"),
        ("b", -1, -1, "m"),
        ("c", 1, 3, "rwm"),
        ("c", 1, 8, "rwm"),
        ("c", 1, 7, "rwm"),
        ("c", 5, 0, "rwm"),
        ("c", 1, 5, "rwm"),
        ("c", 1, 9, "rwm"),
        ("c", 5, 1, "rwm"),
        ("c", 136, -1, "rwm"),
        ("c", 5, 2, "rwm"),
    ]
    rules: list[Json] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in allowed:
        rule: Json = {"allow": True, "type": kind, "access": access}
        rule |= {key: number for key, number in (("major", major), ("minor", minor)) if number >= 0}
        rules.append(rule)
    return rules


def capability_sets(names: list[str] | tuple[str, ...] = CAPABILITIES) -> Json:
    """No ambient and no inheritable ones: a program run by a plain user starts with none (D-2)."""
    return {name: list(names) for name in ("bounding", "permitted", "effective")}


def config(args: list[str], *, env: list[str] | None = None, hostname: str = "", cwd: str = "/") -> Json:
    """A whole OCI configuration with all defaults, to be changed by the caller."""
    configuration: Json = {
        "ociVersion": "1.0.2",
        "process": {
            "args": list(args),
            "env": [PATH] if env is None else list(env),
            "cwd": cwd,
            "user": {"uid": 0, "gid": 0},
            "capabilities": capability_sets(),
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": mounts(),
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "resources": {"devices": device_rules()},
            "maskedPaths": masked_paths(),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }
    if hostname:
        configuration["hostname"] = hostname
    return configuration
