"""A further process in a running container: its namespaces, groups, filter, capabilities and user.

The order is given by what each step still needs: the host's /proc for descriptors, then the namespaces, then what any
first process does too (`program`).
"""

from __future__ import annotations

import os
import socket

from runtime.linux import namespaces as spaces
from runtime.sandbox import credentials
from runtime.sandbox.cgroup import Cgroup, Hierarchies
from runtime.sandbox.paths import Root
from runtime.sandbox.plan import Json
from runtime.sandbox.program import Host, Newborn, identify, run_program

_KINDS = (
    ("mnt", spaces.CLONE_NEWNS),
    ("net", spaces.CLONE_NEWNET),
    ("ipc", spaces.CLONE_NEWIPC),
    ("uts", spaces.CLONE_NEWUTS),
    ("cgroup", spaces.CLONE_NEWCGROUP),
    ("time", spaces.CLONE_NEWTIME),
)


def cgroup_of(pid: int, hierarchies: Hierarchies) -> JoinedCgroup:
    """Where a process is, in every hierarchy (cgroups(7), /proc/pid/cgroup)."""
    directories = []
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as lines:
        for line in lines:
            _, names, path = line.rstrip("\n").split(":", 2)
            wanted = tuple(names.split(",")) if names else ()
            for mount, controllers in hierarchies.mounts.items():
                if (hierarchies.unified and not names) or (not hierarchies.unified and wanted == controllers):
                    directories.append(f"{mount}{path}")
    return JoinedCgroup(hierarchies, directories)


class JoinedCgroup(Cgroup):
    """Somebody else's group: entered, never removed."""

    def __init__(self, hierarchies: Hierarchies, directories: list[str]) -> None:
        super().__init__(hierarchies, "")
        self.directories = directories


class Joiner(Newborn):
    """Runs in a fresh clone whose pid is already in the container's pid namespace; ends in exec or `os._exit`."""

    def __init__(
        self,
        request: Json,
        host: Host,
        channel: socket.socket,
        stdio: tuple[int, int, int],
        seccomp: bytes,
        pidfd: int,
    ) -> None:
        super().__init__(host, request["process"], channel, stdio, seccomp)
        self.target = int(request["pid"])
        self.pidfd = pidfd

    def run(self) -> None:
        self.begin()
        self.doing = "enter the container's control groups"
        self.wait_for("release")
        self.doing = "enter the container's namespaces"
        self._enter()
        root = Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        if self.process.get("terminal"):
            self.open_terminal(root, console=False)
        self.doing = "find the user"
        user = self.process.get("user") or {}
        identity = identify(user, self.process.get("env") or [], root.read)
        self.doing = "set resource limits"
        credentials.set_rlimits(self.process.get("rlimits") or [])
        if self.process.get("oomScoreAdj") is not None:
            credentials.set_oom_score(self.process["oomScoreAdj"])
        sets = credentials.Capabilities(self.process.get("capabilities") or {}, self.host.capabilities)
        run_program(self, identity, sets, user.get("umask"))

    def _enter(self) -> None:
        """Those that differ from ours, in one call: all or none (setns(2), a pidfd since Linux 5.8)."""
        flags = 0
        for name, flag in (("user", spaces.CLONE_NEWUSER), *_KINDS):
            theirs, ours = f"/proc/{self.target}/ns/{name}", f"/proc/self/ns/{name}"
            if os.path.exists(theirs) and os.readlink(theirs) != os.readlink(ours):
                flags |= flag
        if flags:
            spaces.setns(self.pidfd, flags)
        if flags & spaces.CLONE_NEWUSER:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.chdir("/")
