"""Control groups, second version: one tree (Documentation/admin-guide/cgroup-v2.rst).

OCI resources keep v1's words; the conversions are those of the runtime specification and crun.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from runtime.sandbox.cgroup.layout import Cgroup, read, write
from runtime.sandbox.errors import SandboxError

Json = dict[str, Any]
_FREEZE_SECONDS = 5.0


def cpu_weight(shares: int) -> int:
    """2…262144 shares onto 1…10000, as crun and systemd do."""
    return 0 if shares <= 0 else 1 + ((max(2, min(shares, 262144)) - 2) * 9999) // 262142


def _swap(limit: int | None, both: int | None) -> str | None:
    """OCI says memory plus swap, v2 counts swap alone."""
    if both is None or both == 0:
        return None
    if both < 0:
        return "max"
    if limit is None or limit < 0:
        raise SandboxError(f"memory.swap {both} without memory.limit", kind="input")
    if both < limit:
        raise SandboxError(f"memory.swap {both} is less than memory.limit {limit}", kind="input")
    return str(both - limit)


def _or_max(value: int | None) -> str | None:
    return None if value is None else "max" if value <= 0 else str(value)


def settings(resources: Json) -> list[tuple[str, str, str]]:
    """(controller, file, value), pure."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    pids, block = resources.get("pids") or {}, resources.get("blockIO") or {}
    wanted: list[tuple[str, str, str | None]] = [
        ("memory", "memory.max", _or_max(memory.get("limit"))),
        ("memory", "memory.low", _or_max(memory.get("reservation"))),
        ("memory", "memory.swap.max", _swap(memory.get("limit"), memory.get("swap"))),
        ("cpu", "cpu.weight", str(cpu_weight(cpu["shares"])) if cpu.get("shares") else None),
        ("cpu", "cpu.max", _cpu_max(cpu)),
        ("cpuset", "cpuset.cpus", cpu.get("cpus") or None),
        ("cpuset", "cpuset.mems", cpu.get("mems") or None),
        ("pids", "pids.max", _or_max(pids.get("limit"))),
        ("io", "io.bfq.weight", str(block["weight"]) if block.get("weight") else None),
        *_throttles(block),
    ]
    for page in resources.get("hugepageLimits") or ():
        wanted.append(("hugetlb", f"hugetlb.{page['pageSize']}.max", str(page["limit"])))
    found = [(controller, name, value) for controller, name, value in wanted if value is not None]
    found += [
        (name.partition(".")[0], name, value) for name, value in (resources.get("unified") or {}).items()
    ]
    return found


def _cpu_max(cpu: Json) -> str | None:
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota is None and period is None:
        return None
    return f"{quota if quota and quota > 0 else 'max'} {period or 100000}"


def _throttles(block: Json) -> list[tuple[str, str, str | None]]:
    keys = {"throttleReadBpsDevice": "rbps", "throttleWriteBpsDevice": "wbps"}
    keys |= {"throttleReadIOPSDevice": "riops", "throttleWriteIOPSDevice": "wiops"}
    return [
        ("io", "io.max", f"{entry['major']}:{entry['minor']} {word}={entry['rate']}")
        for key, word in keys.items()
        for entry in block.get(key) or ()
    ]


class V2:
    def write_limits(self, cgroup: Cgroup, resources: Json) -> None:
        wanted = settings(resources)
        if not cgroup.directories:
            if wanted:
                raise SandboxError(
                    f"no control group for {wanted[0][1]} = {wanted[0][2]}", kind="unsupported"
                )
            return
        self._delegate(cgroup)
        for controller, name, value in wanted:
            self._set(cgroup, controller, name, value)
        if resources.get("devices"):
            from runtime.sandbox.cgroup.device_program import attach

            attach(cgroup.directories[0], resources["devices"])

    def _delegate(self, cgroup: Cgroup) -> None:
        """Controllers reach a group only through every group above it (cgroup.subtree_control)."""
        (mount, available), *_ = cgroup.hierarchies.mounts.items()
        parents = cgroup.path.split("/")[:-1]
        for depth in range(len(parents) + 1):
            directory = "/".join((mount, *parents[:depth]))
            enabled = read(f"{directory}/cgroup.subtree_control").split()
            for name in available:
                if name not in enabled:
                    # One that cannot be enabled here is reported when a limit needs it.
                    with contextlib.suppress(OSError):
                        write(f"{directory}/cgroup.subtree_control", f"+{name}")

    def _set(self, cgroup: Cgroup, controller: str, name: str, value: str) -> None:
        path = f"{cgroup.directories[0]}/{name}"
        try:
            write(path, value)
        except (FileNotFoundError, PermissionError) as error:
            message = f"no {controller} controller in {cgroup.directories[0]} for {name} = {value}"
            raise SandboxError(message, kind="unsupported", hint="drop the limit") from error
        except OSError as error:
            raise SandboxError(
                f"{name} = {value}: {error.strerror}", operation="set limit", kind="input"
            ) from error

    def oom_kills(self, cgroup: Cgroup) -> int:
        events = read(f"{cgroup.directories[0]}/memory.events") if cgroup.directories else ""
        return _pairs(events).get("oom_kill", 0)

    def freeze(self, cgroup: Cgroup, frozen: bool) -> None:
        directory = cgroup.directories[0]
        write(f"{directory}/cgroup.freeze", "1" if frozen else "0")
        deadline = time.monotonic() + _FREEZE_SECONDS
        while _pairs(read(f"{directory}/cgroup.events")).get("frozen") != int(frozen):
            if time.monotonic() > deadline:
                raise SandboxError("the processes do not freeze", operation="pause")
            time.sleep(0.001)

    def kill(self, cgroup: Cgroup) -> None:
        directory = cgroup.directories[0]
        if os.path.exists(f"{directory}/cgroup.kill"):  # Linux 5.14
            write(f"{directory}/cgroup.kill", "1")
            return
        for pid in cgroup.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stats(self, cgroup: Cgroup) -> Json:
        directory = cgroup.directories[0]
        cpu = _pairs(read(f"{directory}/cpu.stat"))
        limit = read(f"{directory}/memory.max").strip()
        return {
            "cpu_nanoseconds": cpu.get("usage_usec", 0) * 1000,
            "memory": int(read(f"{directory}/memory.current") or 0),
            "memory_peak": int(read(f"{directory}/memory.peak") or 0),
            "memory_limit": int(limit) if limit.isdigit() else 0,
            "memory_cache": _pairs(read(f"{directory}/memory.stat")).get("inactive_file", 0),
            "pids": int(read(f"{directory}/pids.current") or 0),
            "throttled_nanoseconds": cpu.get("throttled_usec", 0) * 1000,
            "oom_kills": self.oom_kills(cgroup),
        }


def _pairs(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].lstrip("-").isdigit()}
