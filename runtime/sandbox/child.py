"""A container's first process, from the clone to its program: the recipe.

Runs in a fresh single-threaded clone of the spawner and ends in exec or `os._exit`; it never returns. Each step is
named before it is done, so a failure says what was being tried. Its two lines to the spawner are a packet socket:
up go "terminal", "ready" and failures, down come "cgroup" (its groups exist and it is in them) and "release".

One that was cloned ahead (`ahead.py`) does everything it can before its plan comes down that line, too.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from runtime.linux import mounts as mount_calls
from runtime.linux import namespaces as spaces
from runtime.sandbox import credentials, devices, masks, network, rootfs, wire
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.mounts import Bind, CgroupV1, FileSystem, Operation, Options, parse_mount
from runtime.sandbox.paths import Root
from runtime.sandbox.plan import Json, Plan
from runtime.sandbox.program import Host, Newborn, identify, run_program

FLAGS = {
    "mount": spaces.CLONE_NEWNS,
    "pid": spaces.CLONE_NEWPID,
    "network": spaces.CLONE_NEWNET,
    "ipc": spaces.CLONE_NEWIPC,
    "uts": spaces.CLONE_NEWUTS,
    "user": spaces.CLONE_NEWUSER,
    "cgroup": spaces.CLONE_NEWCGROUP,
    "time": spaces.CLONE_NEWTIME,
}


class Child(Newborn):
    def __init__(
        self, plan: Plan, host: Host, channel: socket.socket, stdio: tuple[int, int, int], seccomp: bytes
    ) -> None:
        super().__init__(host, {}, channel, stdio, seccomp)
        self.be(plan)
        self.notes: list[str] = []
        self.early: list[Operation] = []
        self.late: list[Operation] = []
        self.ready: list[tuple[Json, Operation]] = []  # mounts made ahead, by their entries

    def be(self, plan: Plan) -> None:
        self.plan, self.init, self.process = plan, plan.init, plan.config.get("process") or {}
        self.config: Json = plan.config
        self.linux: Json = plan.config.get("linux") or {}
        self.spaces = {entry["type"]: entry.get("path") or "" for entry in self.linux.get("namespaces") or ()}

    def run(self) -> None:
        self.begin()
        self._leave_host()
        self._plan_mounts()
        self._enter_root()
        self._mount(self.early)
        self._own_time()
        self.wait_for("cgroup")
        self._own_cgroup_namespace()
        self._mount(self.late)
        self.finish()

    def finish(self) -> NoReturn:
        """From a root with all its mounts to the program."""
        self._finish_root()
        self._names()
        self.notes += credentials.set_labels(self.process)
        wire.send_packet(self.channel, {"event": "ready", "made": self.root.made, "notes": self.notes})
        released = self.wait_for("release")
        self._network([*self.plan.interfaces, *(released.get("interfaces") or ())])
        self._become()

    # -- before the root changes

    def _leave_host(self) -> None:
        self.doing = "join namespaces"
        self._join_namespaces()
        self.doing = "make the host's mounts slaves"
        mount_calls.mount("", "/", "", mount_calls.MS_REC | mount_calls.MS_SLAVE)

    def _join_namespaces(self) -> None:
        """Those given by path. A pid namespace cannot be joined by the process itself: the spawner does it before the clone."""
        for kind, path in self.spaces.items():
            if not path or kind in ("pid", "mount"):
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            spaces.setns(descriptor, FLAGS[kind])
            os.close(descriptor)

    def _plan_mounts(self) -> None:
        """Sort the mounts and open what they need of the host. Those of cgroups, and below, wait for the groups."""
        self.doing = "read the mounts"
        groups = ""
        for entry in self.config.get("mounts") or ():
            operation = self._made_ahead(entry) or parse_mount(entry, self.host.hierarchies)
            target = operation.target.rstrip("/")
            is_group = isinstance(operation, CgroupV1) or entry.get("type") in ("cgroup", "cgroup2")
            groups = target if is_group else groups
            late = groups and (target == groups or target.startswith(groups + "/"))
            (self.late if late else self.early).append(operation)
        for file in self.plan.files:
            words = ["bind", "ro"] if file.get("readonly") else ["bind"]
            self.late.append(Bind(file["source"], file["path"], Options(words, file["path"])))
        for operation in (*self.early, *self.late):
            self.doing = operation.describe()
            operation.prepare()

    def _made_ahead(self, entry: Json) -> Operation | None:
        for index, (made, operation) in enumerate(self.ready):
            if made == entry:
                del self.ready[index]
                return operation
        return None

    def _enter_root(self) -> None:
        self.doing = "mount the root"
        place = rootfs.mount_root(self.plan.rootfs, (self.config.get("root") or {}).get("path", ""))
        self.doing = "change the root"
        rootfs.enter(place)
        self.root = Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    # -- inside

    def _mount(self, operations: list[Operation]) -> None:
        for operation in operations:
            self.doing = operation.describe()
            is_dev = isinstance(operation, FileSystem) and operation.target.rstrip("/") == "/dev"
            made = operation.tree >= 0
            operation.apply(self.root)
            if is_dev and not made:
                self._fill_dev()

    def _fill_dev(self) -> None:
        for node in self.nodes():
            self.doing = node.describe()
            node.apply(self.root)
        self.doing = "link /dev/fd and the like"
        devices.make_links(self.root)

    def nodes(self) -> list[devices.Node]:
        """The default devices and the plan's own."""
        wanted = [devices.parse_device(entry) for entry in self.linux.get("devices") or ()]
        given = {node.path for node in wanted}
        return [*(node for node in devices.default_nodes() if node.path not in given), *wanted]

    def _own_cgroup_namespace(self) -> None:
        """Made only now, because its root is the group the process is in (cgroup_namespaces(7))."""
        if self.spaces.get("cgroup") == "":
            self.doing = "make a cgroup namespace"
            spaces.unshare(spaces.CLONE_NEWCGROUP)

    def _own_time(self) -> None:
        """A time namespace is made for children; entering it oneself takes a second step (time_namespaces(7))."""
        if self.spaces.get("time") != "" or not os.path.exists("/proc/self/ns/time"):
            return
        self.doing = "make a time namespace"
        spaces.unshare(spaces.CLONE_NEWTIME)
        if offsets := self.linux.get("timeOffsets"):
            rows = (f"{clock} {at.get('secs', 0)} {at.get('nanosecs', 0)}\n" for clock, at in offsets.items())
            credentials.write_own("timens_offsets", "".join(rows))
        children = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        spaces.setns(children, spaces.CLONE_NEWTIME)
        os.close(children)

    def _finish_root(self) -> None:
        if self.process.get("terminal"):
            self.open_terminal(self.root, console=True)
        self.doing = "set sysctls"
        for name, value in (self.linux.get("sysctl") or {}).items():
            self._sysctl(name, value)
        self.doing = "set the OOM score"
        if self.process.get("oomScoreAdj") is not None:
            credentials.set_oom_score(self.process["oomScoreAdj"])
        for operation in (
            masks.ReadOnlyPaths(self.linux.get("readonlyPaths") or []),
            masks.Masks(self.linux.get("maskedPaths") or []),
        ):
            self.doing = operation.describe()
            operation.apply(self.root)
        self.doing = "find the working directory"
        os.close(self.root.directory(self.process.get("cwd") or "/"))
        if (self.config.get("root") or {}).get("readonly"):
            self.doing = "make the root read-only"
            rootfs.make_readonly()
        if propagation := self.linux.get("rootfsPropagation"):
            self.doing = "set the root's propagation"
            rootfs.propagate(propagation)

    def _sysctl(self, name: str, value: str) -> None:
        """Only what belongs to one of our own namespaces: anything else would be the host's."""
        space = _sysctl_namespace(name)
        if space is None or space not in self.spaces:
            raise SandboxError(f"sysctl {name!r} is not of a namespace of this container", kind="input")
        path = "/proc/sys/" + name.replace(".", "/")
        try:
            descriptor = self.root.find(path, os.O_WRONLY)
        except FileNotFoundError as error:
            raise SandboxError(f"this kernel has no sysctl {name!r}", kind="unsupported") from error
        try:
            os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)

    def _names(self) -> None:
        self.doing = "set the host name"
        if name := self.config.get("hostname"):
            spaces.sethostname(name)
        if name := self.config.get("domainname"):
            spaces.setdomainname(name)

    def _network(self, interfaces: list[Json]) -> None:
        self.doing = "configure the network"
        if self.spaces.get("network") == "" or interfaces:
            network.configure_interfaces(interfaces)

    def _become(self) -> NoReturn:
        self.doing = "find the user"
        user = self.process.get("user") or {}
        identity = identify(user, self.process.get("env") or [], self.root.read)
        self.doing = "set resource limits"
        credentials.set_rlimits(self.process.get("rlimits") or [])
        credentials.set_personality(self.linux.get("personality") or {})
        sets = credentials.Capabilities(self.process.get("capabilities") or {}, self.host.capabilities)
        run_program(self, identity, sets, user.get("umask"))


def _sysctl_namespace(name: str) -> str | None:
    """The namespace a sysctl belongs to (runc's validator; namespaces(7), ipc_namespaces(7))."""
    if name.startswith("net."):
        return "network"
    if name.startswith(("kernel.msg", "kernel.shm", "fs.mqueue.")) or name == "kernel.sem":
        return "ipc"
    if name in ("kernel.hostname", "kernel.domainname"):
        return "uts"
    if name.startswith("user."):
        return "user"
    return None
