"""Control groups of containers, for those above the sandbox: limits, statistics, pausing, and clearing up.

A container's groups are made by the spawner from the plan's `linux.cgroupsPath` and `linux.resources`; here they are
found again by that path. The work itself is in `runtime.sandbox.cgroup`; errors leave as `runtime.errors`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from registry_client.values import frozen
from runtime.sandbox.cgroup import Hierarchies, detect
from runtime.sandbox.cgroup import sweep as sweeping
from runtime.sandbox_errors import translated


@frozen(kw_only=True)
class Usage:
    """What a container uses now; `memory_limit` 0 is none."""

    cpu_nanoseconds: int
    throttled_nanoseconds: int
    memory: int
    memory_peak: int
    memory_limit: int
    memory_cache: int
    pids: int
    oom_kills: int


@cache
def hierarchies() -> Hierarchies:
    """The host's layout, read once per process."""
    with translated():
        return detect()


def usage(path: str) -> Usage:
    with translated():
        return Usage(**hierarchies().cgroup(path).stats())


def update(path: str, resources: dict[str, Any]) -> None:
    """Change the limits of a running container (OCI linux.resources)."""
    with translated():
        hierarchies().cgroup(path).update(resources)


def pause(path: str) -> None:
    with translated():
        hierarchies().cgroup(path).freeze(True)


def unpause(path: str) -> None:
    with translated():
        hierarchies().cgroup(path).freeze(False)


def processes(path: str) -> list[int]:
    return hierarchies().cgroup(path).processes()


def remove(path: str) -> None:
    """Kill what is left in it and remove it; nothing happens when it is gone already."""
    with translated():
        cgroup = hierarchies().cgroup(path)
        if cgroup.processes():
            cgroup.kill()
        cgroup.remove()


def sweep() -> list[str]:
    """Remove the groups whose spawner was killed; returns their paths."""
    with translated():
        return sweeping.sweep(hierarchies())
