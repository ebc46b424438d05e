"""The same plan run by any OCI runtime: crun, runc, or a path (`--runtime`).

A supervisor per container, forked by the spawner, writes the bundle, mounts the root in a mount namespace of its own,
and drives the runtime: create, start, kill, delete. To the owner it speaks the spawner's packets, so the result is the
same `Process`. It ends its container when the spawner, its parent, is gone.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from typing import Protocol

from runtime.linux import mounts, namespaces
from runtime.linux import process as linux
from runtime.sandbox import helper, network, rootfs, wire
from runtime.sandbox.cgroup import Cgroup, detect
from runtime.sandbox.embedded import Embedded
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.isolate import private_mounts
from runtime.sandbox.launch import describe_failure
from runtime.sandbox.paths import Root
from runtime.sandbox.plan import Json, Plan, check_plan
from runtime.sandbox.program import DEFAULT_PATH, identify
from runtime.sandbox.shim import fork_shim
from runtime.sandbox.spawner import Process, Spawner

_HYBRID = "/sys/fs/cgroup/unified"
_INIT = "/dev/init"  # its sixth letter tells the helper what it is


class Starter(Protocol):
    """What we need of a `Spawner`, or of a shim's `Embedded`: processes are joined natively, whoever made the container."""

    def join(
        self,
        pid: int,
        process: Json,
        stdin: int = -1,
        stdout: int = -1,
        stderr: int = -1,
        *,
        seccomp: str = "",
    ) -> Process: ...


class OciRuntime:
    """Takes a spawner's place: the same `create` and `join`.

    `command` is a name or a path; bundles and the runtime's own state lie below `state`. Without a real `Spawner` the
    supervisor is forked from here: only for callers with one thread.
    """

    def __init__(self, starter: Starter, command: str, state: str) -> None:
        self.starter = starter
        self.command = command
        self.state = state

    def create(
        self,
        plan: Plan,
        stdin: int = -1,
        stdout: int = -1,
        stderr: int = -1,
        *,
        pause: bool = False,
        name: str = "",
    ) -> Process:
        """Like `Spawner.create`; `name` is the container's id for the runtime."""
        path = shutil.which(self.command)
        if path is None:
            message = f"no OCI runtime {self.command!r} on this machine"
            raise SandboxError(message, kind="unsupported", hint="install it, or leave --runtime out")
        given, places = wire.numbered((stdin, stdout, stderr))
        argument = {
            "plan": plan.to_json(),
            "name": name or f"pipe-{os.urandom(8).hex()}",
            "runtime": path,
            "state": self.state,
            "stdio": places,
            "pause": pause,
        }
        process = self._supervised(argument, given)
        process.until_created() if pause else process.until_started()
        return process

    def join(
        self,
        pid: int,
        process: Json,
        stdin: int = -1,
        stdout: int = -1,
        stderr: int = -1,
        *,
        seccomp: str = "",
    ) -> Process:
        return self.starter.join(pid, process, stdin, stdout, stderr, seccomp=seccomp)

    def _supervised(self, argument: Json, given: list[int]) -> Process:
        ours, theirs = wire.packet_pair()
        entry = "runtime.sandbox.oci_runtime:supervise"
        try:
            if isinstance(self.starter, Spawner):
                fds = [theirs.fileno(), *given]
                self.starter.shim(entry, {**argument, "parent": self.starter.pid}, fds)
            else:
                told, tell = wire.packet_pair()
                fork_shim(entry, {**argument, "parent": os.getpid()}, [theirs.fileno(), *given], tell, -1)
                tell.close()
                told.close()
        finally:
            theirs.close()
        return Process(ours)


class EmbeddedRuntime(Embedded):
    """A shim's way to it: everything as `Embedded`, but the container itself is another runtime's."""

    def __init__(self, command: str, state: str) -> None:
        super().__init__()
        self._runtime = OciRuntime(self, command, state)

    def create(
        self, plan: Plan, stdin: int = -1, stdout: int = -1, stderr: int = -1, *, pause: bool = False
    ) -> Process:
        return self._runtime.create(plan, stdin, stdout, stderr, pause=pause)


def supervise(argument: Json, fds: list[int]) -> int:
    """The supervisor's whole life; runs in the shim."""
    owner = socket.socket(fileno=fds[0])
    try:
        _Supervisor(argument, owner, fds).run()
    except Exception as error:  # noqa: BLE001  (the owner must hear of it, whatever it is)
        wire.send_packet(owner, describe_failure(error))
        return 1
    return 0


class _RuntimeFailed(Exception):
    """The runtime's own message."""


class _Supervisor:
    def __init__(self, argument: Json, owner: socket.socket, fds: list[int]) -> None:
        self.plan = Plan.from_json(argument["plan"])
        self.name: str = argument["name"]
        self.runtime: str = argument["runtime"]
        self.pause = bool(argument["pause"])
        self.owner = owner
        self.stdio = [fds[position] if position else subprocess.DEVNULL for position in argument["stdio"]]
        self.parent = os.pidfd_open(argument["parent"])
        self.bundle = os.path.join(argument["state"], "bundles", self.name)
        self.root = os.path.join(argument["state"], "runtime")
        self.pid = self.pidfd = self.master = -1

    def run(self) -> None:
        check_plan(self.plan, native=False)
        # The container's process becomes ours when the runtime, its parent, has exited.
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        os.makedirs(f"{self.bundle}/rootfs", mode=0o700)
        try:
            self._prepare()
            report = self._live()
        finally:
            self._remove_bundle()
        # Last: who hears of the end may remove the directory we work in.
        wire.send_packet(self.owner, report)

    # -- the bundle

    def _prepare(self) -> None:
        private_mounts()
        # crun refuses hosts with v1 hierarchies and a cgroup2 mount beside them; here it sees the v1 ones.
        while detect().names() and os.path.ismount(_HYBRID):
            mounts.umount(_HYBRID, mounts.MNT_DETACH)
        place = f"{self.bundle}/rootfs"
        given = (self.plan.config.get("root") or {}).get("path", "")
        mounted = rootfs.mount_root(self.plan.rootfs, given)
        mounts.mount(mounted, place, "", mounts.MS_BIND | mounts.MS_REC)
        with open(f"{self.bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(self._config(place), file)

    def _remove_bundle(self) -> None:
        """By name and never as a tree: the container's root is mounted in it."""
        place = f"{self.bundle}/rootfs"
        try:
            mounts.umount(place, mounts.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: nothing was mounted yet
                raise
        for name in ("config.json", "pid", "log", "console"):
            try:
                os.unlink(f"{self.bundle}/{name}")
            except FileNotFoundError:
                continue
        os.rmdir(place)
        os.rmdir(self.bundle)

    def _config(self, place: str) -> Json:
        """The plan's configuration with what is ours put into OCI's words."""
        config: Json = {**self.plan.config, "root": {**(self.plan.config.get("root") or {}), "path": place}}
        config["ociVersion"] = "1.0.2"  # Debian 12's crun takes no later one, though it knows what we use.
        config["mounts"] = [*config.get("mounts", []), *(_file_mount(file) for file in self.plan.files)]
        root = Root(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        process = dict(config["process"])
        user = process.get("user") or {}
        identity = identify(user, process.get("env") or [], root.read)
        numbers = {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups}
        process["user"] = numbers | ({"umask": user["umask"]} if "umask" in user else {})
        if not any(word.startswith("HOME=") for word in process.get("env") or []):
            process["env"] = [*(process.get("env") or []), f"HOME={identity.home or '/'}"]
        if self.plan.init:
            self._add_init(config, process, root)
        config["process"] = process
        config["linux"] = {**config["linux"], **self._seccomp()}
        return config

    def _seccomp(self) -> Json:
        """A compiled program is of no use to a runtime; its source lies beside it."""
        if not self.plan.seccomp:
            return {}
        with open(
            os.path.realpath(self.plan.seccomp).removesuffix(".bpf") + ".json", encoding="utf-8"
        ) as file:
            return {"seccomp": json.load(file)}

    def _add_init(self, config: Json, process: Json, root: Root) -> None:
        source = helper.path()
        config["mounts"] = [
            *config["mounts"],
            _file_mount({"path": _INIT, "source": source, "readonly": True}),
        ]
        name, *_ = process["args"]
        process["args"] = [_INIT, _find_in(root, name, process.get("env") or []), *process["args"]]

    # -- the container

    def _call(self, *words: str) -> None:
        command = [self.runtime, "--root", self.root, *words]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if result.returncode:
            message = result.stderr.strip() or f"{os.path.basename(self.runtime)} {words[0]} failed"
            raise _RuntimeFailed(message)

    def _live(self) -> Json:
        """From create to delete; the last report."""
        try:
            self._create()
            if self._released():
                self._start()
            return self._wait()
        except _RuntimeFailed as error:
            return self._refused(str(error))
        finally:
            self._delete()

    def _create(self) -> None:
        """The runtime's own standard streams become the container's; its complaints go through a log file."""
        pid_file, log = f"{self.bundle}/pid", f"{self.bundle}/log"
        words = ["--log", log, "create", "--bundle", self.bundle, "--pid-file", pid_file]
        listener = None
        if self.plan.config["process"].get("terminal"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{self.bundle}/console")
            listener.listen(1)
            words += ["--console-socket", f"{self.bundle}/console"]
        stdin, stdout, stderr = self.stdio if listener is None else [subprocess.DEVNULL] * 3
        command = [self.runtime, "--root", self.root, *words, self.name]
        result = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=stderr, check=False)
        if result.returncode:
            raise _RuntimeFailed(_last_line(log))
        if listener is not None:
            connection, _ = listener.accept()
            _, (self.master,), _, _ = socket.recv_fds(connection, 4096, 1)
            connection.close()
            listener.close()
        with open(pid_file, encoding="utf-8") as file:
            self.pid = int(file.read())
        self.pidfd = os.pidfd_open(self.pid)

    def _refused(self, message: str) -> Json:
        """A missing program is the container's result, everything else a fault of setting up."""
        lower = message.lower()
        missing = "not found" in lower or "no such file" in lower
        if "exec" in lower and (missing or "permission denied" in lower or "format error" in lower):
            # There never was a process: we stand in for it.
            wire.send_packet(self.owner, {"event": "started", "pid": os.getpid()})
            return {"event": "exit", "code": 127 if missing else 126, "oom": False, "error": message}
        operation = f"create a container with {os.path.basename(self.runtime)}"
        return describe_failure(SandboxError(message, operation=operation))

    def _released(self) -> bool:
        if not self.pause:
            return True
        wire.send_packet(self.owner, {"event": "created", "pid": self.pid})
        return self._attend(until_release=True)

    def _start(self) -> None:
        if self.plan.interfaces:
            self._configure_network()
        self._call("start", self.name)
        terminal = [self.master] if self.master >= 0 else []
        wire.send_packet(self.owner, {"event": "started", "pid": self.pid, "made": []}, terminal)

    def _configure_network(self) -> None:
        """From a child, because this process must stay where it is."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                namespaces.setns(self.pidfd, namespaces.CLONE_NEWNET)
                network.configure_interfaces(self.plan.interfaces)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if status:
            raise SandboxError("the interfaces cannot be configured", operation="configure the network")

    def _wait(self) -> Json:
        self._attend(until_release=False)
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert result is not None
        code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        oom = bool(code and self._cgroup().oom_kills())
        return {"event": "exit", "code": code, "oom": oom, "error": ""}

    def _attend(self, *, until_release: bool) -> bool:
        """Serve the owner until the release, or until the container ends; True when released."""
        watched = [self.owner.fileno(), self.parent, self.pidfd]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self.pidfd in ready:
                return False
            if self.parent in ready:
                watched.remove(self.parent)
                self._kill(signal.SIGKILL)
            if self.owner.fileno() in ready:
                packet = wire.receive_packet(self.owner)
                if packet is None:
                    watched.remove(self.owner.fileno())
                elif packet[0]["op"] == "release" and until_release:
                    self.plan.interfaces += packet[0].get("interfaces") or []
                    return True
                elif packet[0]["op"] == "kill":
                    self._kill(int(packet[0]["signal"]))

    def _kill(self, number: int) -> None:
        try:
            self._call("kill", self.name, str(number))
        except _RuntimeFailed:
            # It has just ended, or was never started: the kernel knows what to do.
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    def _delete(self) -> None:
        """By the runtime, and then what it forgets: crun leaves process and groups behind when its create fails."""
        try:
            self._call("delete", "--force", self.name)
        except _RuntimeFailed as error:
            sys.stderr.write(f"{error}\n")
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
            for pid in map(int, children.read().split()):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._cgroup().remove()

    def _cgroup(self) -> Cgroup:
        return detect().cgroup(self.plan.config["linux"].get("cgroupsPath") or self.name)


def _file_mount(file: Json) -> Json:
    options = ["bind", "ro"] if file.get("readonly") else ["bind"]
    return {"destination": file["path"], "type": "bind", "source": file["source"], "options": options}


def _last_line(log: str) -> str:
    try:
        with open(log, encoding="utf-8") as file:
            lines = file.read().strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "the runtime gave no reason"


def _find_in(root: Root, name: str, env: list[str]) -> str:
    """The helper looks nothing up: find the command in the root, as the runtime would have."""
    if "/" in name:
        return name
    path = next((word.removeprefix("PATH=") for word in env if word.startswith("PATH=")), DEFAULT_PATH)
    for directory in path.split(":"):
        try:
            os.close(root.find(f"{directory}/{name}"))
        except OSError:
            continue
        return f"{directory}/{name}"
    return name
