"""Removing the groups that killed spawners left behind.

A spawner names its groups `pipe/<pid namespace>-<pid>-<start time>-<n>`. When no process of that namespace, which must be
ours, has that pid and start time any more, the spawner is gone; its containers died with it, or are killed here.
"""

from __future__ import annotations

import os
import re

from runtime.sandbox.cgroup.layout import Hierarchies

PARENT = "pipe"
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-\d+")


def start_time(pid: int | str) -> str:
    """Field 22 of /proc/<pid>/stat, which with the pid names a process for ever; "" when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")


def own_name() -> str:
    """What the names of this process's groups begin with, below `PARENT` or wherever a plan wants them."""
    return f"{_pid_namespace()}-{os.getpid()}-{start_time(os.getpid())}"


def abandoned(hierarchies: Hierarchies) -> list[str]:
    """Paths of groups whose spawner is no more."""
    found: dict[str, None] = {}
    ours = _pid_namespace()
    for mount in hierarchies.mounts:
        try:
            names = os.listdir(f"{mount}/{PARENT}")
        except FileNotFoundError:
            continue
        for name in names:
            match = _NAME.fullmatch(name)
            if match and match[1] == ours and start_time(match[2]) != match[3]:
                found[f"{PARENT}/{name}"] = None
    return list(found)


def sweep(hierarchies: Hierarchies) -> list[str]:
    """Kill and remove them; returns what was removed."""
    paths = abandoned(hierarchies)
    for path in paths:
        cgroup = hierarchies.cgroup(path)
        if cgroup.processes():
            cgroup.kill()
        cgroup.remove()
    return paths
