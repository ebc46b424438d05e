"""A container's first process, made before anybody knows what it will run.

Builds run one container after the other that differ in root and command. While one runs, the spawner clones the next:
it has its namespaces, lies in its control groups and has made what can be mounted without a root, detached. Then it
waits for its plan. Whether a plan fits is decided by `likeness`; one that does not is started as if there were none.

What is mounted on the host meanwhile must be visible, so its mount namespace is made only then, from the spawner's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from runtime.linux import namespaces as spaces
from runtime.sandbox import devices, wire
from runtime.sandbox.child import FLAGS, Child
from runtime.sandbox.mounts import CgroupV1, FileSystem, parse_mount
from runtime.sandbox.paths import Root
from runtime.sandbox.plan import Json, Plan
from runtime.sandbox.program import FAILED, Host

# Made by the child itself: a cgroup namespace once it is in its groups, a time namespace once it has its offsets.
LATER = ("cgroup", "time")
_DEV = "/dev"


def clone_flags(linux: Json) -> int:
    """The namespaces that a container is cloned with."""
    flags = 0
    for entry in linux.get("namespaces") or ():
        if not entry.get("path") and entry["type"] not in LATER:
            flags |= FLAGS[entry["type"]]
    return flags


def likeness(config: Json) -> tuple[Any, ...] | None:
    """What must be the same for one's first process to serve the other; None for those nothing is made ahead for.

    That is who wants a group of a certain name, or a pid namespace that is there already.
    """
    linux = config.get("linux") or {}
    group = linux.get("cgroupsPath") or ""
    entries = linux.get("namespaces") or ()
    kept = {entry["type"]: entry.get("path") or "" for entry in entries if entry["type"] in ("pid", *LATER)}
    if not group.endswith("/") or kept.get("pid"):
        return None
    same = (linux.get(name) for name in ("resources", "devices", "timeOffsets"))
    return (clone_flags(linux), kept, group, *same)


class Ahead(Child):
    """`config` is of a container like the one that will be asked for; `read_program` reads a compiled filter."""

    def __init__(
        self, config: Json, host: Host, channel: socket.socket, read_program: Callable[[str], bytes]
    ) -> None:
        super().__init__(Plan(config), host, channel, (-1, -1, -1), b"")
        self._read_program = read_program

    def run(self) -> None:
        self.begin()
        self.wait_for("cgroup")
        self._own_cgroup_namespace()
        self._own_time()
        self._make_mounts()
        self._take_plan()
        self.doing = "make a mount namespace"
        spaces.unshare(spaces.CLONE_NEWNS)
        self._leave_host()
        self._plan_mounts()
        self._enter_root()
        self._mount(self.early)
        self._mount(self.late)
        self.finish()

    def _make_mounts(self) -> None:
        """What cannot be made here will be by the plan, which says what is wrong."""
        for entry in self.config.get("mounts") or ():
            operation = parse_mount(entry, self.host.hierarchies)
            if isinstance(operation, FileSystem | CgroupV1):
                with suppress(OSError):
                    if self._is_made(operation):
                        self.ready.append((entry, operation))

    def _is_made(self, operation: FileSystem | CgroupV1) -> bool:
        if operation.target.rstrip("/") != _DEV:
            return operation.make_ahead()
        nodes = self.nodes()
        if not all(node.path.startswith(f"{_DEV}/") for node in nodes) or not operation.make_ahead():
            return False
        root = Root(operation.tree)
        for node in nodes:
            node.below(_DEV).apply(root)
        devices.make_links(root, "/")
        return True

    def _take_plan(self) -> None:
        packet = wire.receive_packet(self.channel)
        if packet is None:
            os._exit(FAILED)  # nobody needed it
        message, fds = packet
        self.be(Plan.from_json(message["plan"]))
        first, second, third = (fds[place - 1] if place else -1 for place in message["stdio"])
        self.stdio = (first, second, third)
        self.doing = "read the seccomp filter"
        self.seccomp = self._read_program(self.plan.seccomp)
