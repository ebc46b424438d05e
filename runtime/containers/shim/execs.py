"""Further processes in the container: those that users start (`exec`) and the probes of its health."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from runtime.containers.frames import STDERR, STDOUT
from runtime.containers.shim.life import has_ended
from runtime.containers.shim.loop import READ, Loop
from runtime.containers.shim.streams import Sink, Source, make_pipe
from runtime.sandbox.embedded import Embedded
from runtime.sandbox.plan import ExitInfo
from runtime.sandbox.spawner import Process


class Exec:
    """A process that joined. `on_output` gets what it writes, `on_exit` how it ended, after the last output."""

    def __init__(
        self,
        loop: Loop,
        on_output: Callable[[int, bytes], None],
        on_exit: Callable[[ExitInfo], None],
    ) -> None:
        self._loop, self._on_output, self._on_exit = loop, on_output, on_exit
        self.process: Process | None = None
        self.stdin: Sink | None = None
        self.terminal = -1
        self._sources: list[Source] = []
        self._pidfd = -1

    def start(
        self, spawner: Embedded, pid: int, process: dict[str, Any], *, stdin: bool, seccomp: str
    ) -> None:
        """Run an OCI `process` beside the container's first one; SandboxError when that cannot be."""
        tty = bool(process.get("terminal"))
        inner, feed = make_pipe() if stdin and not tty else (-1, -1)
        (out, stdout), (err, stderr) = ((-1, -1), (-1, -1)) if tty else (make_pipe(), make_pipe())
        try:
            self.process = spawner.join(pid, process, inner, stdout, stderr, seccomp=seccomp)
        except BaseException:
            for fd in (feed, out, err):
                _close(fd)
            raise
        finally:
            for fd in (inner, stdout, stderr):
                _close(fd)
        self.terminal = self.process.terminal
        if tty and self.terminal >= 0:
            self.stdin = Sink(self._loop, self.terminal, terminal=True)
            self._listen(os.dup(self.terminal), STDOUT)
        elif not tty:
            self.stdin = Sink(self._loop, feed) if feed >= 0 else None
            self._listen(out, STDOUT)
            self._listen(err, STDERR)
        self._watch()

    def _listen(self, fd: int, kind: int) -> None:
        self._sources.append(Source(self._loop, fd, lambda data: self._on_output(kind, data), lambda: None))

    def _watch(self) -> None:
        assert self.process is not None
        try:
            self._pidfd = os.pidfd_open(self.process.pid)
        except ProcessLookupError:
            self._loop.later(0, self._ended)
            return
        self._loop.watch(self._pidfd, READ, lambda events: self._ended())

    def _ended(self) -> None:
        if self._pidfd >= 0 and not has_ended(self._pidfd):
            return  # see Life._ended
        if self._pidfd >= 0:
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        process, self.process = self.process, None
        info = process.wait() if process is not None else None
        for source in self._sources:
            source.drain()
        if self.stdin is not None:
            self.stdin.close()
        _close(self.terminal)
        self.terminal = -1
        self._on_exit(info or ExitInfo(137, False, "the spawner ended"))

    def hold_output(self, wanted: bool) -> None:
        for source in self._sources:
            source.pause(wanted)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.kill(number)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
