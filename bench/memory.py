"""Memory that wait4 does not tell: of all processes of a command at once, and of a daemon.

The sum is of proportional set sizes (proc_pid_smaps_rollup(5)), so a page that processes share counts once. It is
sampled, every few milliseconds of a run of its own, because sampling slows down what it looks at.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

_INTERVAL = 0.005


class Sampled:
    """The largest sum seen so far, in MiB."""

    def __init__(self) -> None:
        self.peak = 0.0


@contextlib.contextmanager
def sampling(pid: int) -> Iterator[Sampled]:
    """Watch a process and its descendants until the end of the block."""
    seen, ended = Sampled(), threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL):
            seen.peak = max(seen.peak, sum(map(_proportional_kib, _with_descendants(pid))) / 1024)

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _with_descendants(int(child))


def _proportional_kib(pid: int) -> int:
    # A process may end at any moment, before or while it is read.
    with contextlib.suppress(OSError):
        return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss")
    return 0


class Daemon:
    """A process that works for its clients. What it held before counts too: only a rise says something of one run."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")

    def forget_peak(self) -> None:
        """Have the kernel begin its high-water mark anew (proc_pid_clear_refs(5))."""
        (self._directory / "clear_refs").write_text("5")

    def peak(self) -> float:
        """MiB since the last `forget_peak`."""
        return _field(self._directory / "status", "VmHWM") / 1024


def _field(file: Path, name: str) -> int:
    line = next((line for line in file.read_text().splitlines() if line.startswith(f"{name}:")), f"{name}: 0")
    return int(line.split()[1])
