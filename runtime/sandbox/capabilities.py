"""Capability names and their bits (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.sandbox.errors import SandboxError

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
BITS = {f"CAP_{name}": 1 << number for number, name in enumerate(NAMES)}
SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")


def mask(names: Iterable[str]) -> int:
    """The bits of OCI capability names."""
    total = 0
    for name in names:
        if name not in BITS:
            raise SandboxError(f"unknown capability {name!r}", kind="input", hint="see capabilities(7)")
        total |= BITS[name]
    return total


def names_of(bits: int) -> list[str]:
    return [name for name, bit in BITS.items() if bits & bit]
