"""Be with a process in a container: its output on ours, our input and signals to it, our terminal raw while it has one.

Everything is put back on the way out, whatever happens. Signals are noted by a wake-up descriptor (signal(3) handlers
must not write to a connection that is being written to) and passed on by the loop that pumps the streams.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from runtime.containers.frames import STDERR

if TYPE_CHECKING:
    from runtime.containers.client import Connection
    from runtime.containers.spec import ExitStatus

DETACH_KEYS = "ctrl-p,ctrl-q"
_NOT_FORWARDED = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH, signal.SIGTSTP,
    signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
    signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip


class Foreground:
    """How to be with a process. `kill` passes a signal on, `resize` a size; None does not."""

    def __init__(
        self,
        connection: Connection,
        *,
        tty: bool,
        stdin: bool,
        detach_keys: str = "",
        kill: Callable[[int], None] | None = None,
        resize: Callable[[int, int], None] | None = None,
    ) -> None:
        self._connection, self._tty, self._stdin = connection, tty, stdin
        self._keys = detach_keys or DETACH_KEYS
        self._kill, self._resize = kill, resize

    def run(self) -> ExitStatus | None:
        """Until it ends; None when the user detached."""
        from runtime.containers.client import parse_detach_keys

        keys = parse_detach_keys(self._keys) if self._tty else b""
        with ExitStack() as stack:
            wake = stack.enter_context(self._signals())
            if self._tty and self._stdin and os.isatty(0):
                stack.enter_context(raw_terminal(0))
            self._send_size()
            stdin = 0 if self._stdin else -1
            return self._connection.pump(
                _output, stdin, detach_keys=keys, wake=wake, on_wake=self._on_signals
            )

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """A descriptor that gives the numbers of the signals we get, for as long as the block lasts."""
        wanted: list[int] = [signal.SIGWINCH] if self._resize else []
        if self._kill:
            wanted += [number for number in signal.valid_signals() if number not in _NOT_FORWARDED]
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before: dict[int, object] = {}
        old = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            for number in wanted:
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGWINCH:
                    before[number] = signal.signal(number, lambda number, frame: None)
            yield read
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            signal.set_wakeup_fd(old)
            os.close(read)
            os.close(write)

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._send_size()
            elif self._kill:
                self._kill(number)

    def _send_size(self) -> None:
        if self._resize and self._tty and os.isatty(1):
            size = os.get_terminal_size(1)
            self._resize(size.lines, size.columns)


def _output(kind: int, data: bytes) -> None:
    fd = 2 if kind == STDERR else 1
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """The terminal passes everything on as it is typed."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.flush()
