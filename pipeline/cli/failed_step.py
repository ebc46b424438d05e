"""`pipe build --on-failure=shell`: a shell in the sandbox of the step that failed, while the build waits.

Its terminal is the sandbox's own; what is typed goes there, Ctrl-C too. Without a terminal of our own there is nobody to
talk to, and the way to get in later is said instead.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import TYPE_CHECKING

from pipeline.cli.foreground import raw_terminal
from runtime.store.durable import write_all

if TYPE_CHECKING:
    from builder.failed import FailedStep

_ONE_AT_A_TIME = threading.Lock()  # there is one terminal


def enter(step: FailedStep) -> None:
    """A shell until it ends."""
    with _ONE_AT_A_TIME:
        if not (os.isatty(0) and os.isatty(1)):
            print(
                "pipe: no terminal; enter the failed step later with `pipe shell --last-failed`",
                file=sys.stderr,
            )
            return
        print(f"{step.label} failed; this is its sandbox, `exit` ends it", file=sys.stderr, flush=True)
        size = os.get_terminal_size(0)
        process = step.start((step.shell,), size.lines, size.columns)
        try:
            with raw_terminal(0):
                _pump(process.terminal)
        finally:
            os.close(process.terminal)
            process.kill()
            process.wait()


def _pump(terminal: int) -> None:
    """Both ways, until the sandbox lets go of its side (read(2) then fails with EIO)."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(terminal, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            try:
                data = os.read(ready, 1 << 16)
            except OSError:
                data = b""
            if not data and ready == terminal:
                return
            if not data:
                poll.unregister(0)  # the keyboard is gone, the shell may still have something to say
                write_all(terminal, b"\x04")
                continue
            write_all(terminal if ready == 0 else 1, data)
