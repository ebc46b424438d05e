"""A container's limits in the words of the OCI runtime config. Pure, and nothing is said that was not asked for."""

from __future__ import annotations

import os
from typing import Any

from runtime.containers.spec import Limits
from runtime.errors import InvalidInput

CPU_PERIOD = 100_000
_UNITS = {"bps": "Bps", "iops": "IOPS"}
SMALLEST_MEMORY = 6 << 20  # Docker's; less does not even start a shell


def resources(limits: Limits) -> dict[str, Any]:
    """The `linux.resources` of a config, without devices."""
    check_limits(limits)
    record = {
        "memory": _memory(limits),
        "cpu": _cpu(limits),
        "pids": {"limit": limits.pids} if limits.pids > 0 else {},
        "blockIO": _block_io(limits),
    }
    return {name: value for name, value in record.items() if value}


def check_limits(limits: Limits) -> None:
    """Limits that contradict each other or cannot work are the user's mistake."""
    if limits.memory and limits.memory < SMALLEST_MEMORY:
        raise InvalidInput(f"memory limit of {limits.memory} bytes is too small", hint="the least is 6m")
    if limits.memory_swap > 0 and not limits.memory:
        raise InvalidInput("a swap limit needs a memory limit", hint="give --memory too")
    if limits.memory_swap > 0 and limits.memory_swap < limits.memory:
        raise InvalidInput(
            f"swap limit {limits.memory_swap} is below the memory limit {limits.memory}",
            hint="--memory-swap is memory and swap together",
        )
    if limits.memory_reservation and limits.memory and limits.memory_reservation > limits.memory:
        raise InvalidInput(
            f"memory reservation {limits.memory_reservation} is above the limit {limits.memory}"
        )
    if limits.cpus and (limits.cpu_quota or limits.cpu_period):
        raise InvalidInput(
            "--cpus and --cpu-quota or --cpu-period say the same twice", hint="give one of them"
        )
    if limits.cpus < 0 or limits.cpus > (available := os.cpu_count() or 1):
        raise InvalidInput(f"{limits.cpus:g} processors of {available} cannot be given")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidInput(f"block IO weight {limits.blkio_weight} is not between 10 and 1000")


def _memory(limits: Limits) -> dict[str, Any]:
    # Docker's rule: a memory limit alone allows as much swap again.
    swap = limits.memory_swap or limits.memory * 2
    record = {"limit": limits.memory, "swap": swap, "reservation": limits.memory_reservation}
    memory: dict[str, Any] = {name: value for name, value in record.items() if value}
    if limits.swappiness >= 0:
        memory["swappiness"] = limits.swappiness
    if limits.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(limits: Limits) -> dict[str, Any]:
    quota = round(limits.cpus * CPU_PERIOD) if limits.cpus else limits.cpu_quota
    record = {
        "shares": limits.cpu_shares,
        "quota": quota,
        "period": limits.cpu_period or (CPU_PERIOD if limits.cpus else 0),
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
        "realtimePeriod": limits.cpu_rt_period,
        "realtimeRuntime": limits.cpu_rt_runtime,
    }
    return {name: value for name, value in record.items() if value}


def _block_io(limits: Limits) -> dict[str, Any]:
    record: dict[str, Any] = {"weight": limits.blkio_weight} if limits.blkio_weight else {}
    if limits.blkio_device_weights:
        record["weightDevice"] = [
            {**_numbers(device), "weight": weight} for device, weight in limits.blkio_device_weights
        ]
    for throttle in limits.throttles:
        direction, unit = throttle.kind.split("-")
        key = f"throttle{direction.capitalize()}{_UNITS[unit]}Device"
        record.setdefault(key, []).append({**_numbers(throttle.device), "rate": throttle.rate})
    return record


def _numbers(device: str) -> dict[str, int]:
    try:
        number = os.stat(device).st_rdev
    except OSError as error:
        raise InvalidInput(f"device {device} is not there") from error
    return {"major": os.major(number), "minor": os.minor(number)}
