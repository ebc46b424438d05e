"""Starting containers from a process that may have threads.

`Spawner.start()` forks a single-threaded helper before the first thread; everything else here is the owner's side of
the line to it and may be called from any thread. The helper dies with its owner, and its containers with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

from runtime.sandbox import wire
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import ExitInfo, Json, Plan

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)


class Process:
    """A container's first process, or one that joined it, as its owner sees it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._exit: ExitInfo | None = None
        self._failure: SandboxError | None = None
        self._started = False
        self.pid = 0
        self.terminal = -1  # the pty's master, when the plan asks for a terminal; the caller's to close
        self.made: list[str] = []  # mount points that did not exist in the root and were made, in order
        self.notes: list[str] = []  # what was asked for, does not exist on this host, and changes nothing

    def release(self, interfaces: list[Json] | None = None) -> None:
        """Let a paused container go on to its program; `interfaces` adds to the plan's what was only known now."""
        wire.send_packet(self._line, {"op": "release", "interfaces": interfaces or []})
        self.until_started()

    def wait(self, timeout: float | None = None) -> ExitInfo | None:
        """How it ended; None when it has not within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._exit is None:
            if not self._receive(deadline):
                return None
        return self._exit

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal its first process; SIGKILL ends all of the container. Without effect on one that has ended."""
        if self._exit is None:
            wire.send_packet(self._line, {"op": "kill", "signal": int(number)})

    def until_created(self) -> None:
        """Wait for its namespaces; raises what went wrong on the way."""
        while not self.pid and self._exit is None:
            self._receive(None)
            self._raise_failure()

    def until_started(self) -> None:
        """Wait for its program to run, or to have failed to; raises what went wrong on the way."""
        while not self._started and self._exit is None:
            self._receive(None)
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _receive(self, deadline: float | None) -> bool:
        """Take the next report, whichever thread gets it; False at the deadline. All waiters wake at the end of the line."""
        if not self._readable(None if deadline is None else max(0.0, deadline - time.monotonic())):
            return False
        with self._lock:
            if self._exit is not None:
                return True
            try:
                self._take(wire.receive_packet(self._line, socket.MSG_DONTWAIT))
            except BlockingIOError:
                pass
        return True

    def _readable(self, seconds: float | None) -> bool:
        """Wait for a report, at most so long."""
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _take(self, packet: tuple[dict[str, Any], list[int]] | None) -> None:
        if packet is None:
            error = str(self._failure) if self._failure else "the spawner ended"
            self._exit = ExitInfo(125 if self._failure else 137, False, error)
            return
        message, fds = packet
        match message["event"]:
            case "created":
                self.pid = message["pid"]
            case "started":
                self.pid, self._started = message["pid"], True
                self.made, self.notes = message.get("made") or [], message.get("notes") or []
                if fds:
                    (self.terminal,) = fds
            case "failed":
                self._failure = SandboxError(
                    message["error"],
                    operation=message.get("operation", ""),
                    kind=message.get("kind", "host"),
                    hint=message.get("hint", ""),
                )
            case "exit":
                self._exit = ExitInfo(message["code"], message["oom"], message["error"])


class ShimHandle:
    """A shim that was started: its pid. It lives on its own; nothing here ends it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


class Starting(ABC):
    """How containers and further processes are started, whichever way the requests go."""

    def create(
        self,
        plan: Plan,
        stdin: int = -1,
        stdout: int = -1,
        stderr: int = -1,
        *,
        pause: bool = False,
    ) -> Process:
        """Start a container. Returns once its program runs (or failed to: see `wait`), or, with `pause`, once its
        namespaces exist. The descriptors stay the caller's; -1 is /dev/null.
        """
        message = {"op": "create", "plan": plan.to_json(), "pause": pause}
        process = self._request(message, (stdin, stdout, stderr))
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
        """Run an OCI `process` in the container whose first process has this pid."""
        message = {"op": "join", "pid": pid, "process": process, "seccomp": seccomp}
        joined = self._request(message, (stdin, stdout, stderr))
        joined.until_started()
        return joined

    @abstractmethod
    def _request(self, message: Json, stdio: tuple[int, int, int]) -> Process: ...


class Spawner(Starting):
    """The owner's end of the line. A context manager: leaving it kills what is left."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._pid = pid
        self._moving: Process | None = None  # on its way into another mount namespace

    @classmethod
    def start(cls) -> Spawner:
        """Fork the helper. Only before the first thread."""
        ours, theirs = wire.stream_pair()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _be_spawner(theirs)
            finally:
                os._exit(70)
        theirs.close()
        return cls(ours, pid)

    @property
    def pid(self) -> int:
        return self._pid

    def shim(
        self, entry: str, argument: Json, fds: list[int] | None = None, *, wait: bool = True
    ) -> ShimHandle:
        """Fork a process that outlives us; it calls `module:function` with `argument` and its copies of `fds`.

        Without `wait` it is not known whether that goes well: its descriptors tell.
        """
        shim = self._send({"op": "shim", "entry": entry, "argument": argument}, list(fds or ()))
        if wait:
            shim.until_started()
        return ShimHandle(shim.pid)

    def warm(self, module: str) -> None:
        """Have the helper import what its shims will need, while we do something else. Nothing is waited for."""
        self._send({"op": "warm", "module": module}, [])

    def get_ready(self) -> None:
        """Have the helper look at this host now, beside what we do until the first container. Nothing is waited for."""
        self._send({"op": "ready"}, [])

    def create_step(self, plan: Plan, stdout: int, stderr: int, *, more: bool) -> Process:
        """Like `create`, of one in a row: with `more` another like it will be wanted soon."""
        message = {"op": "create", "plan": plan.to_json(), "pause": False, "more": more}
        process = self._request(message, (-1, stdout, stderr))
        process.until_started()
        return process

    def get_ahead(self, config: Json) -> None:
        """Have the helper make ready for a container like this (`runtime.sandbox.ahead`). Nothing is waited for."""
        self._send({"op": "ahead", "config": config}, [])

    def follow_mounts(self, namespace: int) -> None:
        """Tell the helper to live in another mount namespace (`isolate.private_mounts`); the first container waits for it."""
        self._moving = self._send({"op": "mounts"}, [namespace])

    def _request(self, message: Json, stdio: tuple[int, int, int]) -> Process:
        if (moving := self._moving) is not None:
            moving.until_started()
            self._moving = None
        given, places = wire.numbered(stdio)
        return self._send({**message, "stdio": places}, given)

    def _send(self, message: Json, fds: list[int]) -> Process:
        ours, theirs = wire.packet_pair()
        try:
            with self._lock:
                wire.send_request(self._line, message, [theirs.fileno(), *fds])
        except OSError as error:
            ours.close()
            raise SandboxError("the spawner is gone", operation="start a container") from error
        finally:
            theirs.close()
        return Process(ours)

    def close(self) -> None:
        """End the helper, and with it every container it still has."""
        if self._pid:
            self._line.close()
            pid, self._pid = self._pid, 0
            os.waitpid(pid, 0)

    def __enter__(self) -> Spawner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _compiled(profile: Json) -> int:
    """A configuration's own linux.seccomp, compiled here and now: slow, and right for what is run once."""
    from runtime.sandbox.seccomp import compile_profile

    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(compile_profile(profile))
    return descriptor


def _be_spawner(line: socket.socket) -> None:
    """In the helper: keep nothing of the owner but the line."""
    from runtime.linux import process as linux
    from runtime.sandbox.server import serve

    # A session of its own: the terminal's Ctrl-C is the owner's to handle, not ours.
    os.setsid()
    # The owner's handlers are not ours, and what it ignores its containers must not (`program._reset_signals`).
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in IGNORED else signal.SIG_DFL)
    # glibc's posix_spawn leaves its internal signals ignored in what it starts, and `make` starts us so.
    for internal in (32, 33):
        linux.default_action(internal)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    kept = line.detach()
    if kept != 3:
        os.dup2(kept, 3, inheritable=False)
    linux.close_range(4, 0xFFFFFFFF)
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    os.close(null)
    gc.disable()
    gc.freeze()
    serve(socket.socket(fileno=3))
    os._exit(0)
