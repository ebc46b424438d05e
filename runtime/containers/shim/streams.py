"""Bytes to and from a process: what it writes goes to listeners, what they send goes to it.

A listener that is slow makes the process wait, as a pipe would: nothing is dropped and nothing is piled up. Without
listeners (and without a log) output is read and forgotten.
"""

from __future__ import annotations

import fcntl
import os
import termios
from collections.abc import Callable
from struct import pack

from runtime.containers.shim.loop import GONE, READ, WRITE, Loop

CHUNK = 64 << 10
_FULL = 256 << 10  # so much may wait for a process that does not read
_PIPE_SIZE = 256 << 10


def make_pipe() -> tuple[int, int]:
    """(read end, write end), larger than the default where the limits allow."""
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass  # pipe-user-pages-soft (pipe(7)); the default will do
    return ends


class Source:
    """One stream of a process, read as long as nobody asks for a pause."""

    def __init__(self, loop: Loop, fd: int, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._loop, self._fd, self._take, self._ended = loop, fd, take, ended
        self._paused = False
        os.set_blocking(fd, False)
        loop.watch(fd, READ, self._ready)

    @property
    def open(self) -> bool:
        return self._fd >= 0

    def _ready(self, events: int) -> None:
        if self._read() or not events & GONE or self._paused:
            return
        self.close()

    def _read(self) -> bool:
        """Hand on what is there; False at the end."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the last process let go of the terminal
            data = b""
        if data:
            self._take(data)
            return True
        self.close()
        return False

    def pause(self, wanted: bool) -> None:
        if self.open and wanted != self._paused:
            self._paused = wanted
            if wanted:
                self._loop.forget(self._fd)
            else:
                self._loop.watch(self._fd, READ, self._ready)

    def drain(self) -> None:
        """The process is gone: take what is left in the pipe, without waiting for others that hold it."""
        while self.open:
            try:
                data = os.read(self._fd, CHUNK)
            except OSError:  # nothing there now, or EIO
                break
            if not data:
                break
            self._take(data)
        self.close()

    def close(self) -> None:
        if self.open:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._ended()


class Sink:
    """The standard input of a process."""

    def __init__(self, loop: Loop, fd: int, *, terminal: bool = False) -> None:
        self._loop, self._fd, self._terminal = loop, fd, terminal
        self._waiting = bytearray()
        self._closing = False
        self.on_relief: Callable[[], None] = lambda: None  # it reads again
        os.set_blocking(fd, False)

    @property
    def full(self) -> bool:
        return len(self._waiting) >= _FULL

    def write(self, data: bytes) -> None:
        """Pass on, now or when it reads."""
        if self._fd >= 0 and not self._closing:
            self._waiting += data
            self._flush()

    def end(self) -> None:
        """No more will come; on a terminal that is what ctrl-d says."""
        if self._terminal:
            self.write(b"\x04")
        elif self._fd >= 0:
            self._closing = True
            self._flush()

    def _flush(self, events: int = 0) -> None:
        full = self.full
        self._pass_on()
        if full and not self.full:
            self.on_relief()

    def _pass_on(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._fd, self._waiting[:CHUNK])]
        except BlockingIOError:
            self._loop.watch(self._fd, WRITE, self._flush)
            return
        except OSError:  # EPIPE: it closed its input
            self._waiting.clear()
            self._closing = True
        self._loop.forget(self._fd)
        if self._closing:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            if not self._terminal:
                os.close(self._fd)
            self._fd = -1


def resize(terminal: int, rows: int, columns: int) -> None:
    """Tell a terminal its size."""
    if 0 <= rows < 1 << 16 and 0 <= columns < 1 << 16:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, pack("HHHH", rows, columns, 0, 0))
