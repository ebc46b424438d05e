"""The last steps before exec, in the only order that works: limits, seccomp, capabilities, user.

Without no_new_privs a filter needs CAP_SYS_ADMIN, so it is installed before capabilities go; with it, last, so that
it need not allow what we still do (the order of runc, libcontainer/standard_init_linux.go).
"""

from __future__ import annotations

import os
import resource
from typing import Any

from runtime.linux import process as linux
from runtime.sandbox import capabilities
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.user import Identity

_INFINITY = 2**64 - 1


def _limit_value(value: int) -> int:
    return resource.RLIM_INFINITY if value in (-1, _INFINITY) else value


def set_rlimits(limits: list[dict[str, Any]]) -> None:
    """process.rlimits; more than our own hard limit needs CAP_SYS_RESOURCE."""
    for limit in limits:
        name = limit["type"]
        number = getattr(resource, name, None)
        if number is None:
            raise SandboxError(f"unknown rlimit {name!r}", kind="input")
        soft, hard = _limit_value(limit["soft"]), _limit_value(limit["hard"])
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:
            raise SandboxError(f"{name} {soft}:{hard} is not valid: {error}", kind="input") from error
        except PermissionError as error:
            _, ours = resource.getrlimit(number)
            raise SandboxError(
                f"{name} {soft}:{hard} is more than the {ours} this process may give",
                kind="unsupported",
                hint="ask for less, or give the host process CAP_SYS_RESOURCE",
            ) from error


def write_own(name: str, value: str) -> None:
    """Write a file of our own directory in /proc."""
    descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def set_oom_score(score: int) -> None:
    write_own("oom_score_adj", str(score))


def set_personality(personality: dict[str, Any]) -> None:
    """linux.personality: PER_LINUX32 makes uname(2) say a 32-bit machine."""
    match personality.get("domain"):
        case None | "LINUX":
            return
        case "LINUX32":
            linux.personality(8)
        case other:
            raise SandboxError(f"unknown personality {other!r}", kind="input")


def set_labels(process: dict[str, Any]) -> list[str]:
    """Labels for the next exec, where the host has the security module; otherwise a note, since nothing depends on them."""
    notes = []
    for key, module, name, prefix in (
        ("apparmorProfile", "AppArmor", "attr/apparmor/exec", "exec "),
        ("selinuxLabel", "SELinux", "attr/selinux/exec", ""),
    ):
        label = process.get(key)
        if not label or label == "unconfined":
            continue
        if os.path.exists(f"/proc/self/{name}"):
            write_own(name, prefix + label)
        else:
            notes.append(f"this host has no {module}: {key} {label!r} is not applied")
    return notes


class Capabilities:
    """The five sets as masks. What the host process itself does not have cannot be given."""

    def __init__(self, sets: dict[str, list[str]], available: int) -> None:
        self.bounding, self.permitted, self.effective, self.inheritable, self.ambient = (
            capabilities.mask(sets.get(name) or ()) & available for name in capabilities.SETS
        )

    def drop_bounding(self, last: int) -> None:
        for number in range(last + 1):
            if not self.bounding >> number & 1:
                linux.prctl(linux.PR_CAPBSET_DROP, number)

    def apply(self) -> None:
        linux.capset(self.effective, self.permitted, self.inheritable)
        for number in range(self.ambient.bit_length()):
            if self.ambient >> number & 1:
                linux.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_RAISE, number)


def own_capabilities() -> tuple[int, int]:
    """What this process has in its permitted set, and the number of the last capability the kernel knows."""
    with open("/proc/self/status", "rb") as status:
        line = next(line for line in status if line.startswith(b"CapPrm:"))
    with open("/proc/sys/kernel/cap_last_cap", "rb") as last:
        return int(line.split()[1], 16), int(last.read())


def become(identity: Identity, sets: Capabilities, last: int) -> None:
    """Change to the user and keep exactly the capabilities asked for."""
    sets.drop_bounding(last)
    linux.prctl(linux.PR_SET_KEEPCAPS, 1)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    linux.prctl(linux.PR_SET_KEEPCAPS, 0)
    sets.apply()
