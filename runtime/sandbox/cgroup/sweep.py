"""Removing the groups that killed spawners left behind.

A spawner names its groups `pipe/<pid>-<start time>-<n>`. When no process has that pid and start time any more, the
spawner is gone; its containers died with it, or are killed here.
"""

from __future__ import annotations

import os
import re

from runtime.sandbox.cgroup.layout import Hierarchies

_NAME = re.compile(r"(\d+)-(\d+)-\d+")


def _start_time(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def abandoned(hierarchies: Hierarchies) -> list[str]:
    """Paths of groups whose spawner is no more."""
    found: dict[str, None] = {}
    for mount in hierarchies.mounts:
        try:
            names = os.listdir(f"{mount}/pipe")
        except FileNotFoundError:
            continue
        for name in names:
            match = _NAME.fullmatch(name)
            if match and _start_time(match[1]) != match[2]:
                found[f"pipe/{name}"] = None
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
