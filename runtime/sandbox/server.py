"""The spawner itself: one process, one thread, one loop.

It serves its owner until the owner's end of the line closes, by `close()` or by death; then it kills what is left,
removes the control groups, and goes. Nothing an owner sends can stop it: a bad request is answered and forgotten.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

from runtime.linux import namespaces as spaces
from runtime.sandbox import wire
from runtime.sandbox.ahead import likeness
from runtime.sandbox.cgroup.sweep import sweep
from runtime.sandbox.launch import Launched, Machine, describe_failure
from runtime.sandbox.plan import Json, Plan, check_plan
from runtime.sandbox.shim import fork_shim

_READ = select.EPOLLIN


class Server:
    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[], Any]] = {}
        self.running: set[Launched] = set()
        self.ahead: Launched | None = None  # a first process that waits for its plan
        self.shims: dict[int, int] = {}
        self.machine: Machine | None = None
        self.home_mounts = -1
        self.swept = False

    def serve(self) -> None:
        self._watch(self.line.fileno(), self._request)
        self.over = False
        while not self.over:
            self.turn()
        self.end()

    def turn(self, seconds: float | None = None) -> None:
        """Wait for something, at most so long, and do what is ready then."""
        # A number may be closed and given to something new within a round: the event was the old one's.
        ready = [(descriptor, self.handlers.get(descriptor)) for descriptor, _ in self.poll.poll(seconds)]
        for descriptor, handler in ready:
            if handler is not None and self.handlers.get(descriptor) is handler:
                handler()

    def _watch(self, descriptor: int, handler: Callable[[], Any]) -> None:
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, _READ)

    def _forget(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None):
            self.poll.unregister(descriptor)

    # -- requests

    def _request(self) -> None:
        try:
            received = wire.receive_request(self.line)
        except ConnectionResetError:
            received = None
        if received is None:
            self.over = True
            return
        message, fds = received
        try:
            self.serve_one(message, fds)
        finally:
            for descriptor in fds:
                if descriptor >= 0:
                    os.close(descriptor)

    def serve_one(self, message: Json, fds: list[int]) -> None:
        """`fds[0]` is the owner's line for this one thing; the rest are stdio or what a shim gets."""
        if not fds:
            return
        owner = socket.socket(fileno=fds[0])
        fds[0] = -1
        try:
            match message["op"]:
                case "create" | "join":
                    self._start(message, fds, owner)
                case "shim":
                    self._shim(message, fds, owner)
                case "warm":
                    importlib.import_module(message["module"])
                    owner.close()
                case "ready":
                    self._get_ready()
                    owner.close()
                case "ahead":
                    self._make_ahead(message["config"])
                    owner.close()
                case "mounts":
                    self._follow_mounts(fds[1], owner)
                case other:
                    raise ValueError(f"unknown request {other!r}")
        except Exception as error:  # noqa: BLE001  (whatever it was, the next request must be served)
            wire.send_packet(owner, describe_failure(error))
            owner.close()

    def _get_ready(self) -> None:
        """What the first container needs, and what else would be done at the end."""
        self.machine = self.machine or Machine()
        if not self.swept:
            sweep(self.machine.hierarchies)
            self.swept = True

    def _start(self, message: Json, fds: list[int], owner: socket.socket) -> None:
        if self.machine is None:
            self.machine = Machine()
        stdio = self._stdio(message["stdio"], fds)
        if message["op"] == "join":
            launched = Launched(owner, None)
            self._try(launched, lambda machine: launched.join(machine, message, stdio))
        else:
            self._create(message, Plan.from_json(message["plan"]), owner, stdio)

    def _create(self, message: Json, plan: Plan, owner: socket.socket, stdio: tuple[int, int, int]) -> None:
        assert self.machine is not None
        launched, pause = self._taken_ahead(plan), bool(message["pause"])
        if launched is not None and not launched.hand_over(owner, plan, stdio, pause):
            launched.drop()
            launched = None
        if launched is not None:
            self._attend(launched)
        else:
            launched = Launched(owner, self.machine.cgroup(plan.config))
            self._try(launched, lambda machine: launched.start(machine, plan, stdio, pause))
        if message.get("more"):
            self._make_ahead(plan.config)

    def _try(self, launched: Launched, start: Callable[[Machine], None]) -> None:
        assert self.machine is not None
        try:
            start(self.machine)
        except Exception as error:  # noqa: BLE001  (reported to the owner; the loop goes on)
            launched.fail(error)
        if launched.pidfd < 0:
            launched.owner.close()
            return
        self._attend(launched)

    def _attend(self, launched: Launched) -> None:
        self.running.add(launched)
        if launched.channel is not None:
            channel = launched.channel.fileno()
            self._watch(channel, lambda: self._child(launched, channel))
        self._watch(launched.owner.fileno(), lambda: self._owner(launched))
        self._watch(launched.pidfd, lambda: self._ended(launched))

    def _stdio(self, given: list[int], fds: list[int]) -> tuple[int, int, int]:
        """Which of the passed descriptors is which stream; -1 is /dev/null."""
        first, second, third = (fds[index] if index > 0 else -1 for index in given)
        return first, second, third

    # -- the next container

    def _make_ahead(self, config: Json) -> None:
        """Clone a first process for a container like this. When that fails, so will the container, and say why."""
        if self.ahead is not None or likeness(config) is None:
            return
        self.machine = self.machine or Machine()
        launched = Launched(None, self.machine.cgroup(config))
        try:
            launched.start_ahead(self.machine, config)
        except Exception:  # noqa: BLE001  (see above)
            if launched.pidfd >= 0:
                launched.drop()
            return
        assert launched.channel is not None
        self.ahead = launched
        # It has nothing to say before it has its plan, but that it cannot be.
        self._watch(launched.channel.fileno(), self._drop_ahead)
        self._watch(launched.pidfd, self._drop_ahead)

    def _taken_ahead(self, plan: Plan) -> Launched | None:
        """The process that was made ahead, if it will do."""
        if self.ahead is None:
            return None
        check_plan(plan)
        return self._let_go() if likeness(plan.config) == self.ahead.like else None

    def _let_go(self) -> Launched | None:
        launched, self.ahead = self.ahead, None
        if launched is not None:
            assert launched.channel is not None
            self._forget(launched.channel.fileno())
            self._forget(launched.pidfd)
        return launched

    def _drop_ahead(self) -> None:
        if (launched := self._let_go()) is not None:
            launched.drop()

    # -- events of a container

    def _child(self, launched: Launched, channel: int) -> None:
        try:
            if not launched.child_speaks():
                self._forget(channel)
                launched.line_closed()
        except Exception as error:  # noqa: BLE001  (one child's nonsense must not end the others)
            self._forget(channel)
            launched.give_up(error)

    def _owner(self, launched: Launched) -> None:
        packet = wire.receive_packet(launched.owner)
        if packet is None:
            self._forget(launched.owner.fileno())
            return
        try:
            launched.owner_speaks(packet[0])
        except Exception as error:  # noqa: BLE001  (one bad word about one container)
            wire.send_packet(launched.owner, {"event": "refused", "error": str(error)})

    def _ended(self, launched: Launched) -> None:
        channel = launched.channel.fileno() if launched.channel is not None else -1
        self._forget(launched.pidfd)
        self._forget(launched.owner.fileno())
        if channel >= 0:
            self._forget(channel)
        self.running.discard(launched)
        try:
            launched.ended()
        except Exception as error:  # noqa: BLE001  (e.g. a group that cannot be removed; the sweep tries again)
            wire.send_packet(launched.owner, describe_failure(error))
        launched.owner.close()

    # -- shims and mounts

    def _shim(self, message: Json, fds: list[int], owner: socket.socket) -> None:
        pid = fork_shim(message["entry"], message["argument"], fds[1:], owner, self.home_mounts)
        pidfd = os.pidfd_open(pid)
        self.shims[pidfd] = pid
        self._watch(pidfd, lambda: self._reap(pidfd))
        owner.close()

    def _reap(self, pidfd: int) -> None:
        self._forget(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        del self.shims[pidfd]

    def _follow_mounts(self, namespace: int, owner: socket.socket) -> None:
        """Live in the owner's mount namespace from now on; shims, which outlive it, go back to the one we came from."""
        self._drop_ahead()  # it knows only the mounts of where it was born
        if self.home_mounts < 0:
            self.home_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        spaces.setns(namespace, spaces.CLONE_NEWNS)
        wire.send_packet(owner, {"event": "started", "pid": 0})
        owner.close()

    def end(self) -> None:
        self._drop_ahead()
        for launched in self.running:
            launched.kill(signal.SIGKILL)
        for launched in list(self.running):
            self._ended(launched)
        if self.machine is not None and not self.swept:
            sweep(self.machine.hierarchies)


def serve(line: socket.socket) -> None:
    """Serve until the owner is gone."""
    Server(line).serve()
