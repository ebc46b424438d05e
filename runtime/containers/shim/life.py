"""One container from its start to its end, and its restarts in between.

    starting -> (paused until its network is there) -> running -> exited -> restarting -> … -> over

The order at an end is fixed: what is left of the output goes to log and listeners, then the state is written, then
those who wait hear of it. Whoever hears of an end can read everything about it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from runtime.containers.frames import STDERR, STDOUT
from runtime.containers.logfile import LogWriter
from runtime.containers.restarts import Restarts
from runtime.containers.shim.loop import READ, Loop, Timer
from runtime.containers.shim.streams import Sink, Source, make_pipe
from runtime.containers.state import EXITED, PAUSED, RESTARTING, RUNNING, State, write_state
from runtime.sandbox.cgroup import detect
from runtime.sandbox.embedded import Embedded
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import ExitInfo, Plan
from runtime.sandbox.spawner import Process
from runtime.store.owners import own_token

STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Life:
    """`argument` is what `runtime.containers.starting` made; `on_output`, `on_event`, `on_over` are the shim's."""

    def __init__(self, loop: Loop, spawner: Embedded, argument: dict[str, Any]) -> None:
        self.loop, self.spawner, self.argument = loop, spawner, argument
        self.directory: str = argument["directory"]
        self.plan = Plan.from_json(argument["plan"])
        self.tty = bool(argument["tty"])
        self.state = State()
        self.state.shim = own_token()
        self.restarts = Restarts(argument["restart"]["policy"], argument["restart"]["maximum"])
        self.log = _open_log(argument["log"])
        self.process: Process | None = None
        self.stdin: Sink | None = None
        self.terminal = -1
        self.over = False
        self.on_output: Callable[[int, bytes], None] = lambda kind, data: None
        self.on_begin: Callable[[], None] = lambda: None  # it runs, and nobody knows yet
        self.on_running: Callable[[], None] = lambda: None
        self.on_exit: Callable[[bool], None] = lambda final: None
        self._sources: list[Source] = []
        self._ends = (-1, -1, -1)  # ours of the pipes, until it runs
        self._pidfd = self._netns = -1
        self._timers: list[Timer] = []
        self._ending = ""  # why it was told to end: "hand", "unhealthy"

    # --- start --------------------------------------------------------------------------------------------------------

    def start(self, *, pause: bool) -> None:
        """Make the process; with `pause` it waits for `release`, when its network is there."""
        wanted = [make_pipe() if use else (-1, -1) for use in self._pipes()]
        (stdin, feed), (out, stdout), (err, stderr) = wanted
        try:
            self.process = self.spawner.create(self.plan, stdin, stdout, stderr, pause=pause)
        except SandboxError:
            for fd in (feed, out, err):
                _close(fd)
            raise
        finally:
            for fd in (stdin, stdout, stderr):
                _close(fd)
        self._ends = (feed, out, err)
        self.state.pid = self.process.pid
        self._started = self.loop.clock()
        self._pidfd = self._watch_end()
        if pause:
            self._keep_network()  # now, while it cannot be gone yet
        else:
            self._running()

    def _pipes(self) -> tuple[bool, bool, bool]:
        return bool(self.argument["stdin"]) and not self.tty, not self.tty, not self.tty

    def release(self, interfaces: list[dict[str, Any]]) -> None:
        """Its network is attached: let it run."""
        assert self.process is not None
        self.process.release(interfaces)
        self._running()

    def _running(self) -> None:
        assert self.process is not None
        (feed, out, err), self._ends = self._ends, (-1, -1, -1)
        self.terminal = self.process.terminal
        if self.tty and self.terminal >= 0:
            self.stdin = Sink(self.loop, self.terminal, terminal=True)
            self._listen(os.dup(self.terminal), STDOUT)
        elif not self.tty:
            self.stdin = Sink(self.loop, feed) if feed >= 0 else None
            self._listen(out, STDOUT)
            self._listen(err, STDERR)
        self.state.status, self.state.started = RUNNING, time.time()
        self.state.code, self.state.error, self.state.oom_killed = 0, "", False
        self._started = self.loop.clock()
        self.on_begin()
        write_state(self.directory, self.state)
        self.on_running()

    def _watch_end(self) -> int:
        """A descriptor that is readable once the process has ended; -1 when it was quicker than we."""
        assert self.process is not None
        try:
            pidfd = os.pidfd_open(self.process.pid)
        except ProcessLookupError:
            self._timers.append(self.loop.later(0, self._ended))
            return -1
        self.loop.watch(pidfd, READ, lambda events: self._ended())
        return pidfd

    def _listen(self, fd: int, kind: int) -> None:
        self._sources.append(Source(self.loop, fd, lambda data: self._take(kind, data), lambda: None))

    def _take(self, kind: int, data: bytes) -> None:
        if self.log is not None:
            self.log.write(STREAM_NAMES[kind], data)
        self.on_output(kind, data)

    def _keep_network(self) -> None:
        """A restart finds its network namespace again, with addresses and published ports as they were."""
        if self._netns >= 0 or self.restarts.policy == "no" or not self.argument["own_network"]:
            return
        assert self.process is not None
        self._netns = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for space in self.plan.config["linux"]["namespaces"]:
            if space["type"] == "network":
                space["path"] = f"/proc/{os.getpid()}/fd/{self._netns}"
        self.plan.interfaces = []

    def hold_output(self, wanted: bool) -> None:
        """A listener is slow (or no longer): the process has to wait."""
        for source in self._sources:
            source.pause(wanted)

    # --- end ----------------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        """The process has ended. (Not called for nothing: a handler that took over a descriptor's number in the same
        round of poll(2) may see the event of its predecessor.)"""
        if self._pidfd >= 0 and not has_ended(self._pidfd):
            return
        if self._pidfd >= 0:
            self.loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        process, self.process = self.process, None
        info = process.wait() if process is not None else None
        self._finish(info or ExitInfo(137, False, "the spawner ended"))

    def failed(self, error: SandboxError) -> None:
        """It could not be started."""
        if self._pidfd >= 0:
            self.loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.process = None
        self._drain()
        self.state.pid = 0
        self.state.status, self.state.code, self.state.error = EXITED, 125, str(error)
        self.state.finished = time.time()
        self._over()

    def _finish(self, info: ExitInfo) -> None:
        self._drain()
        uptime = self.loop.clock() - self._started
        self.state.pid, self.state.finished = 0, time.time()
        self.state.code, self.state.oom_killed, self.state.error = info.code, info.oom_killed, info.error
        never_ran = bool(info.error) and info.code in (126, 127)
        delay = self.restarts.after(
            info.code,
            uptime,
            by_hand=self._ending == "hand" or never_ran,
            unhealthy=self._ending == "unhealthy",
        )
        self.state.by_hand, self._ending = self._ending == "hand", ""
        self._cancel_timers()
        if delay is None:
            self.state.status = EXITED
            self._over()
            return
        self.state.status, self.state.restarts = RESTARTING, self.restarts.count
        write_state(self.directory, self.state)
        self.on_exit(False)
        self._timers.append(self.loop.later(delay, self._again))

    def _drain(self) -> None:
        for source in self._sources:
            source.drain()
        self._sources = []
        for fd in self._ends:
            _close(fd)
        self._ends = (-1, -1, -1)
        if self.stdin is not None:
            self.stdin.close()
            self.stdin = None
        _close(self.terminal)
        self.terminal = -1

    def _again(self) -> None:
        try:
            self.start(pause=False)
        except SandboxError as error:
            self.failed(error)

    def _over(self) -> None:
        self.over = True
        self._cancel_timers()
        if self.log is not None:
            self.log.close()
            self.log = None
        write_state(self.directory, self.state)
        self.on_exit(True)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    # --- orders -------------------------------------------------------------------------------------------------------

    def stop(self, number: int, timeout: float, why: str = "hand") -> None:
        """Ask it to end, and make it end after `timeout` seconds; a negative timeout waits for ever."""
        if self._ending != "hand":  # a stop by hand is not to be undone by poor health on the way out
            self._ending = why
        if self.state.status == RESTARTING:
            self.state.status, self.state.by_hand = EXITED, True
            self._over()
            return
        if self.process is None:
            return
        if self.state.status == PAUSED:
            self.pause(False)
        self.process.kill(number)
        if timeout >= 0 and number != signal.SIGKILL:
            self._timers.append(self.loop.later(timeout, lambda: self.kill(signal.SIGKILL)))

    def kill(self, number: int) -> None:
        """A signal; one that is meant to end it also ends its restarting."""
        if number in (signal.SIGKILL, self.argument["stop_signal"]) and not self._ending:
            self._ending = "hand"
        if self.state.status == RESTARTING:
            self.stop(number, 0)
        elif self.process is not None:
            if number == signal.SIGKILL and self.state.status == PAUSED:
                self.pause(False)  # v1: a frozen process does not even die
            self.process.kill(number)

    def pause(self, frozen: bool) -> None:
        """Freeze all its processes, or let them go on."""
        detect().cgroup(self.argument["cgroup"]).freeze(frozen)
        self.state.status = PAUSED if frozen else RUNNING
        write_state(self.directory, self.state)


def has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def _open_log(log: dict[str, Any]) -> LogWriter | None:
    if log["driver"] == "none":
        return None
    return LogWriter(log["path"], log["max_size"], log["max_files"])


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
