"""The kernel: version, privileges, namespaces, control groups, seccomp."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Level
from pipeline.doctor.host import Host

_OLDEST = (5, 11)  # openat2, mount_setattr, close_range, clone3: DESIGN.md, Dependencies
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
_CONTROLLERS = {
    "memory": "memory limits",
    "cpu": "cpu limits",
    "pids": "limits on the number of processes",
}
# capabilities(7), as numbered by linux/capability.h: what root mode cannot do without.
_CAPABILITIES = {0: "CHOWN", 12: "NET_ADMIN", 18: "SYS_CHROOT", 21: "SYS_ADMIN", 27: "MKNOD"}
_SYS_RESOURCE = 24


def kernel(host: Host) -> Iterator[Finding]:
    release = host.read("/proc/sys/kernel/osrelease").strip()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        yield Finding("kernel", Level.BROKEN, "this is not Linux, or /proc is not mounted", "mount /proc")
    elif tuple(map(int, numbers.groups())) < _OLDEST:
        yield Finding("kernel", Level.BROKEN, release, "update to Linux 5.11 or newer")
    else:
        yield Finding("kernel", Level.OK, release)


def privileges(host: Host) -> Iterator[Finding]:
    if host.user != 0:
        hint = "run as root; without, only commands work that start no containers"
        yield Finding("privileges", Level.BROKEN, f"user {host.user}", hint)
        return
    effective = int(_field(host.read("/proc/self/status"), "CapEff") or "0", 16)
    missing = [name for number, name in _CAPABILITIES.items() if not effective >> number & 1]
    if missing:
        hint = "this looks like a container: start it privileged"
        yield Finding("privileges", Level.BROKEN, f"root without {', '.join(missing)}", hint)
    elif not effective >> _SYS_RESOURCE & 1:
        hint = "harmless, unless containers are to get more than the hard limits of `ulimit -H -a`"
        yield Finding(
            "privileges", Level.NOTE, "root, but hard limits cannot be raised (no SYS_RESOURCE)", hint
        )
    else:
        yield Finding("privileges", Level.OK, "root")


def _field(status: str, name: str) -> str:
    return next((line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")), "")


def namespaces(host: Host) -> Iterator[Finding]:
    missing = [name for name in _NAMESPACES if not host.exists(f"/proc/self/ns/{name}")]
    if missing:
        hint = "use a kernel with namespaces (CONFIG_NAMESPACES and those below it)"
        yield Finding("namespaces", Level.BROKEN, f"the kernel lacks {', '.join(missing)}", hint)
    else:
        yield Finding("namespaces", Level.OK, ", ".join(_NAMESPACES))
    most = host.read("/proc/sys/user/max_user_namespaces").strip()
    if not host.exists("/proc/self/ns/user") or most == "0":
        hint = "only for containers without root: `sysctl -w user.max_user_namespaces=10000`"
        yield Finding("user namespaces", Level.NOTE, "switched off", hint)
    else:
        yield Finding("user namespaces", Level.OK, f"at most {most}" if most else "available")


def cgroups(host: Host) -> Iterator[Finding]:
    version, controllers = _hierarchies(host)
    if not version:
        hint = "`mount -t cgroup2 none /sys/fs/cgroup`"
        yield Finding("cgroups", Level.LIMITED, "no hierarchy is mounted: no limits, no usage", hint)
        return
    missing = [what for name, what in _CONTROLLERS.items() if name not in controllers]
    shown = f"{version} with {', '.join(sorted(controllers)) or 'no controllers'}"
    if missing:
        hint = "check the kernel's parameters (cgroup_disable=, systemd.unified_cgroup_hierarchy=)"
        yield Finding("cgroups", Level.LIMITED, f"{shown}: no {', no '.join(missing)}", hint)
    else:
        yield Finding("cgroups", Level.OK, shown)


def _hierarchies(host: Host) -> tuple[str, set[str]]:
    """v1 or v2 as the sandbox chooses (v1 where it is mounted), and the controllers."""
    known = {line.split()[0] for line in host.read("/proc/cgroups").splitlines() if not line.startswith("#")}
    ones: set[str] = set()
    two = ""
    for line in host.read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(), "", "", "")[:3]
        if kind == "cgroup":
            ones |= known & set(options.split(","))
        elif kind == "cgroup2":
            two = two or before.split()[4]
    if ones:
        return "v1", ones
    return ("v2", set(host.read(f"{two}/cgroup.controllers").split())) if two else ("", set())


def seccomp(host: Host) -> Iterator[Finding]:
    if not host.exists("/proc/sys/kernel/seccomp/actions_avail"):
        hint = "use a kernel with CONFIG_SECCOMP_FILTER, or run with --security-opt seccomp=unconfined"
        yield Finding("seccomp", Level.LIMITED, "the kernel cannot filter system calls", hint)
    elif not host.library("libseccomp.so.2"):
        yield Finding(
            "seccomp", Level.LIMITED, "libseccomp is not installed", "install the package libseccomp2"
        )
    else:
        yield Finding("seccomp", Level.OK, "filters, libseccomp")


CHECKS = (kernel, privileges, namespaces, cgroups, seccomp)
