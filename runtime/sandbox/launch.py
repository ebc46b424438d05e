"""The spawner's half of a container: clone, control groups, the exchange with the child, and what became of it.

Lives in the single-threaded spawner. A `Launched` moves through events that its loop delivers: a packet from the
child, a request from the owner, the end of the process. It reports to the owner and never waits for anybody.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from runtime.linux import namespaces as spaces
from runtime.linux.process import close_range
from runtime.sandbox import helper, wire
from runtime.sandbox.ahead import Ahead, clone_flags, likeness
from runtime.sandbox.cgroup import Cgroup, Hierarchies, detect
from runtime.sandbox.cgroup.sweep import PARENT, own_name
from runtime.sandbox.child import Child
from runtime.sandbox.credentials import own_capabilities
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.join import Joiner, cgroup_of
from runtime.sandbox.plan import Json, Plan, check_plan
from runtime.sandbox.program import Host, exec_failed


class Machine:
    """The facts of this host, read once per spawner, and the names of its control groups."""

    def __init__(self) -> None:
        self.hierarchies: Hierarchies = detect()
        capabilities, last = own_capabilities()
        self.host = Host(self.hierarchies.names(), capabilities, last, helper.load())
        self._name = own_name()
        self._count = 0
        self._programs: dict[str, bytes] = {}

    def program(self, path: str) -> bytes:
        """A compiled seccomp program; those in a cache never change, so they are read once."""
        program = self._programs.get(path, b"")
        if path and not program:
            with open(path, "rb") as file:
                program = file.read()
            if not path.startswith("/proc/"):
                self._programs[path] = program
        return program

    def cgroup(self, config: Json) -> Cgroup:
        """The plan's own path, or one whose name says which spawner to outlive (`cgroup.sweep`); below it, if it ends in "/"."""
        self._count += 1
        path = (config.get("linux") or {}).get("cgroupsPath") or f"{PARENT}/"
        if path.endswith("/"):
            path = f"{path}{self._name}-{self._count}"
        return self.hierarchies.cgroup(path)


class Launched:
    """A container, or a process that joined one, from its clone to its end. One made ahead has no owner yet."""

    def __init__(self, owner: socket.socket | None, cgroup: Cgroup | None) -> None:
        self._owner = owner
        self.cgroup = cgroup
        self.like: tuple[Any, ...] | None = None  # of what it was made ahead for
        self.pid = self.pidfd = -1
        self.channel: socket.socket | None = None
        self.own_pid_namespace = False
        self.pause = False
        self.problem: Json | None = None
        self.made: list[str] = []
        self.notes: list[str] = []
        self.terminal = -1
        self.command = ""

    @property
    def owner(self) -> socket.socket:
        assert self._owner is not None, "what has no owner yet has nothing to tell"
        return self._owner

    # -- start

    def start(self, machine: Machine, plan: Plan, stdio: tuple[int, int, int], pause: bool) -> None:
        """Clone the child and put it into its groups while it is already building its root."""
        check_plan(plan)
        linux = plan.config["linux"]
        pid_namespace = next((each.get("path") for each in linux["namespaces"] if each["type"] == "pid"), "")
        program = machine.program(plan.seccomp)
        ours, theirs = wire.packet_pair()
        child = Child(plan, machine.host, theirs, stdio, program)
        kept = [theirs.fileno(), machine.host.helper, *stdio]
        self._clone(clone_flags(linux), pid_namespace or "", child.main, kept)
        theirs.close()
        self.channel = ours
        if self._enter_groups(linux):
            self._go_on(plan, pause)

    def start_ahead(self, machine: Machine, config: Json) -> None:
        """Clone a first process for whatever will be like this."""
        self.like = likeness(config)
        linux = config["linux"]
        ours, theirs = wire.packet_pair()
        child = Ahead(config, machine.host, theirs, machine.program)
        kept = [theirs.fileno(), machine.host.helper]
        self._clone(clone_flags(linux) & ~spaces.CLONE_NEWNS, "", child.main, kept)
        theirs.close()
        self.channel = ours
        self._enter_groups(linux)

    def hand_over(self, owner: socket.socket, plan: Plan, stdio: tuple[int, int, int], pause: bool) -> bool:
        """Give a plan to a process made ahead, unless it has gone meanwhile or the plan is too long for it."""
        assert self.channel is not None
        given, places = wire.numbered(stdio)
        try:
            sent = wire.send_packet(self.channel, {"plan": plan.to_json(), "stdio": places}, given)
        except ValueError:
            return False
        if not sent:
            return False
        self._owner = owner
        self._go_on(plan, pause)
        return True

    def _enter_groups(self, linux: Json) -> bool:
        """Make its groups and move it there; False when it has already failed, and its own report says why."""
        assert self.cgroup is not None and self.channel is not None
        self.own_pid_namespace = bool(clone_flags(linux) & spaces.CLONE_NEWPID)
        try:
            self.cgroup.create(linux.get("resources") or {})
            self.cgroup.enter(self.pid)
        except ProcessLookupError:
            return False
        wire.send_packet(self.channel, {"event": "cgroup"})
        return True

    def _go_on(self, plan: Plan, pause: bool) -> None:
        assert self.channel is not None
        self.command, self.pause = plan.config["process"]["args"][0], pause
        if pause:
            wire.send_packet(self.owner, {"event": "created", "pid": self.pid})
        else:
            wire.send_packet(self.channel, {"event": "release"})

    def join(self, machine: Machine, request: Json, stdio: tuple[int, int, int]) -> None:
        """Clone a process that enters a running container."""
        target = int(request["pid"])
        self.command = request["process"]["args"][0]
        program = machine.program(str(request.get("seccomp") or ""))
        ours, theirs = wire.packet_pair()
        pidfd = os.pidfd_open(target)
        try:
            child = Joiner(request, machine.host, theirs, stdio, program, pidfd)
            kept = [theirs.fileno(), machine.host.helper, pidfd, *stdio]
            self._clone(0, f"/proc/{target}/ns/pid", child.main, kept)
            theirs.close()
            self.channel = ours
            cgroup_of(target, machine.hierarchies).enter(self.pid)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)
        wire.send_packet(ours, {"event": "release"})

    def _clone(self, flags: int, pid_namespace: str, child: Callable[[], NoReturn], kept: list[int]) -> None:
        """clone(2); a pid namespace given by path is entered for the clone only, since it counts for children alone."""
        home = other = -1
        try:
            if pid_namespace:
                home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
                other = os.open(pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
                spaces.setns(other, spaces.CLONE_NEWPID)
            self.pid, self.pidfd = spaces.clone(flags)
            if self.pid == 0:
                try:
                    gc.disable()  # A forgotten socket collected now would close a number that is something else by now.
                    keep_only(kept)
                    child()
                finally:
                    os._exit(125)
        finally:
            if other >= 0:
                spaces.setns(home, spaces.CLONE_NEWPID)
                os.close(other)
            if home >= 0:
                os.close(home)

    # -- events

    def child_speaks(self) -> bool:
        """Take one packet of the child; False at the end of the line."""
        assert self.channel is not None
        packet = wire.receive_packet(self.channel)
        if packet is None:
            return False
        message, fds = packet
        match message.get("event"):
            case None:
                failure = exec_failed(self.command, message["errno"])
                self.problem = {"event": "exec", "code": failure.code, "error": failure.message}
            case "ready":
                self.made, self.notes = message["made"], message["notes"]
            case "terminal":
                (self.terminal,) = fds
            case _:
                self.problem = message
        return True

    def line_closed(self) -> None:
        """The child runs its program now, or is gone. Whoever watches the line must have stopped: its number is free now."""
        assert self.channel is not None
        self.channel.close()
        self.channel = None
        if self.problem is not None and self.problem["event"] == "failed":
            wire.send_packet(self.owner, self.problem)
            return
        terminal = [self.terminal] if self.terminal >= 0 else []
        report = {"event": "started", "pid": self.pid, "made": self.made, "notes": self.notes}
        wire.send_packet(self.owner, report, terminal)
        if terminal:
            os.close(self.terminal)
            self.terminal = -1

    def owner_speaks(self, message: Json) -> None:
        match message.get("op"):
            case "release" if self.channel is not None:
                wire.send_packet(
                    self.channel, {"event": "release", "interfaces": message.get("interfaces") or []}
                )
            case "kill":
                self.kill(int(message["signal"]))

    def kill(self, number: int) -> None:
        """A signal to its first process; SIGKILL to all: with the first process of a pid namespace everything in it ends."""
        try:
            if number == signal.SIGKILL and not self.own_pid_namespace and self.cgroup is not None:
                self.cgroup.kill()
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def ended(self) -> None:
        """The process is a zombie: reap it, say how it ended, and leave nothing of it."""
        if self.channel is not None:
            while self.child_speaks():
                pass
            self.line_closed()
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        code = 0
        if result is not None:
            code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        if self.problem is not None and self.problem["event"] == "exec":
            code = self.problem["code"]
        oom = bool(code and self.cgroup is not None and self.cgroup.oom_kills())
        error = self.problem["error"] if self.problem is not None else ""
        wire.send_packet(self.owner, {"event": "exit", "code": code, "oom": oom, "error": error})
        self.remove_cgroup()

    def remove_cgroup(self) -> None:
        if self.cgroup is None:
            return
        if not self.own_pid_namespace:
            self.cgroup.kill()
        self.cgroup.remove()

    def give_up(self, error: Exception) -> None:
        """The child says what we do not understand: it must not run."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        self.problem = describe_failure(error)
        wire.send_packet(self.owner, self.problem)
        self.kill(signal.SIGKILL)

    def drop(self) -> None:
        """End one that was made ahead: nobody has heard of it."""
        self.kill(signal.SIGKILL)
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        if self.channel is not None:
            self.channel.close()
        self.remove_cgroup()

    def fail(self, error: Exception) -> None:
        """Starting went wrong on our side: end what there is and tell the owner."""
        self.problem = describe_failure(error)
        if self.pidfd >= 0:
            self.kill(signal.SIGKILL)
        else:
            wire.send_packet(self.owner, self.problem)


def keep_only(kept: list[int]) -> None:
    """Close every other descriptor: one of ours held by a child would hide our death from it and from its siblings."""
    first = 3
    for descriptor in sorted(number for number in set(kept) if number >= first):
        if descriptor > first:
            close_range(first, descriptor - 1)
        first = descriptor + 1
    close_range(first, 0xFFFFFFFF)


def describe_failure(error: Exception) -> Json:
    if isinstance(error, SandboxError):
        kind, operation, message, hint = error.kind, error.operation, error.message, error.hint
    elif isinstance(error, OSError):
        kind, operation, hint = "host", "start", ""
        message = f"{error.strerror or error} {error.filename or ''}".strip()
    else:
        kind, operation, message, hint = "input", "read the plan", f"{type(error).__name__}: {error}", ""
    return {"event": "failed", "operation": operation, "error": message, "kind": kind, "hint": hint}
