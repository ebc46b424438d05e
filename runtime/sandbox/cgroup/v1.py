"""Control groups, first version: one hierarchy per controller (Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from runtime.sandbox.cgroup.devices import rule_text
from runtime.sandbox.cgroup.layout import Cgroup, read, write
from runtime.sandbox.errors import SandboxError

Json = dict[str, Any]
_FREEZE_SECONDS = 5.0
_UNLIMITED = 0x7FFFFFFFFFFFF000


def _settings(resources: Json) -> list[tuple[str, str, str]]:
    """(controller, file, value) for everything that is one number in one file, in the order the kernel accepts."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    pids, block = resources.get("pids") or {}, resources.get("blockIO") or {}
    wanted: list[tuple[str, str, Any]] = [
        ("memory", "memory.limit_in_bytes", memory.get("limit")),
        ("memory", "memory.soft_limit_in_bytes", memory.get("reservation")),
        # Memory plus swap may not be less than memory: the limit above comes first.
        ("memory", "memory.memsw.limit_in_bytes", memory.get("swap")),
        ("memory", "memory.swappiness", memory.get("swappiness")),
        ("memory", "memory.oom_control", 1 if memory.get("disableOOMKiller") else None),
        ("cpu", "cpu.shares", cpu.get("shares")),
        ("cpu", "cpu.cfs_period_us", cpu.get("period")),
        ("cpu", "cpu.cfs_quota_us", cpu.get("quota")),
        ("cpu", "cpu.rt_period_us", cpu.get("realtimePeriod")),
        ("cpu", "cpu.rt_runtime_us", cpu.get("realtimeRuntime")),
        ("cpuset", "cpuset.cpus", cpu.get("cpus") or None),
        ("cpuset", "cpuset.mems", cpu.get("mems") or None),
        ("blkio", "blkio.weight", block.get("weight")),
        ("pids", "pids.max", _pids(pids.get("limit"))),
    ]
    for page in resources.get("hugepageLimits") or ():
        wanted.append(("hugetlb", f"hugetlb.{page['pageSize']}.limit_in_bytes", page["limit"]))
    network = resources.get("network") or {}
    wanted.append(("net_cls", "net_cls.classid", network.get("classID")))
    return [(controller, name, str(value)) for controller, name, value in wanted if value is not None]


def _pids(limit: int | None) -> str | None:
    return None if limit is None else str(limit) if limit > 0 else "max"


def _throttles(resources: Json) -> list[tuple[str, str]]:
    block = resources.get("blockIO") or {}
    found = []
    for key, name in (
        ("throttleReadBpsDevice", "read_bps"),
        ("throttleWriteBpsDevice", "write_bps"),
        ("throttleReadIOPSDevice", "read_iops"),
        ("throttleWriteIOPSDevice", "write_iops"),
    ):
        found += [
            (f"blkio.throttle.{name}_device", f"{entry['major']}:{entry['minor']} {entry['rate']}")
            for entry in block.get(key) or ()
        ]
    return found


class V1:
    def write_limits(self, cgroup: Cgroup, resources: Json) -> None:
        for controller, name, value in _settings(resources):
            self._set(cgroup, controller, name, value)
        for name, value in _throttles(resources):
            self._set(cgroup, "blkio", name, value)
        if resources.get("devices"):
            self._devices(cgroup, resources["devices"])

    def _set(self, cgroup: Cgroup, controller: str, name: str, value: str) -> None:
        directory = cgroup.directory(controller)
        if directory is None:
            raise SandboxError(
                f"this host has no {controller} controller for {name} = {value}",
                kind="unsupported",
                hint="drop the limit",
            )
        try:
            write(f"{directory}/{name}", value)
        except FileNotFoundError as error:
            raise SandboxError(f"this kernel has no {name} (wanted {value})", kind="unsupported") from error
        except OSError as error:
            raise SandboxError(
                f"{name} = {value}: {error.strerror}", operation="set limit", kind="input"
            ) from error

    def _devices(self, cgroup: Cgroup, rules: list[Json]) -> None:
        """Without the controller there is nothing to write: nodes are then kept away by CAP_MKNOD and mount flags alone."""
        directory = cgroup.directory("devices")
        if directory is None:
            return
        for rule in rules:
            write(f"{directory}/devices.{'allow' if rule.get('allow') else 'deny'}", rule_text(rule))

    def oom_kills(self, cgroup: Cgroup) -> int:
        directory = cgroup.directory("memory")
        text = read(f"{directory}/memory.oom_control") if directory else ""
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    def freeze(self, cgroup: Cgroup, frozen: bool) -> None:
        directory = cgroup.directory("freezer")
        if directory is None:
            raise SandboxError("this host has no freezer controller", operation="pause", kind="unsupported")
        wanted = "FROZEN" if frozen else "THAWED"
        deadline = time.monotonic() + _FREEZE_SECONDS
        # FREEZING may hang on a task that was just forked: write again until it has stuck (runc does the same).
        while True:
            write(f"{directory}/freezer.state", wanted)
            if read(f"{directory}/freezer.state").strip() == wanted:
                return
            if time.monotonic() > deadline:
                raise SandboxError("the processes do not freeze", operation="pause")
            time.sleep(0.001)

    def kill(self, cgroup: Cgroup) -> None:
        """Signal until the group is empty. Frozen tasks take a SIGKILL only when thawed."""
        with contextlib.suppress(FileNotFoundError, SandboxError):
            self.freeze(cgroup, True)
        for pid in cgroup.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError, SandboxError):
            self.freeze(cgroup, False)

    def stats(self, cgroup: Cgroup) -> Json:
        memory, cpu, pids = (cgroup.directory(name) or "" for name in ("memory", "cpuacct", "pids"))
        limit = int(read(f"{memory}/memory.limit_in_bytes") or 0)
        throttled = _pairs(read(f"{cgroup.directory('cpu') or ''}/cpu.stat"))
        return {
            "cpu_nanoseconds": int(read(f"{cpu}/cpuacct.usage") or 0),
            "memory": int(read(f"{memory}/memory.usage_in_bytes") or 0),
            "memory_peak": int(read(f"{memory}/memory.max_usage_in_bytes") or 0),
            "memory_limit": 0 if limit >= _UNLIMITED else limit,
            "memory_cache": _pairs(read(f"{memory}/memory.stat")).get("total_inactive_file", 0),
            "pids": int(read(f"{pids}/pids.current") or 0),
            "throttled_nanoseconds": throttled.get("throttled_time", 0),
            "oom_kills": self.oom_kills(cgroup),
        }


def _pairs(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}
