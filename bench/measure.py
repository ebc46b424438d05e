"""One timed run of a whole process, and what several alternated runs say.

The clock and the peak memory are the kernel's (wait4): wall time from fork to exit, and the largest resident set of the
process and the children it waited for. A daemon's own work is not in the memory figure of its client.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import time
from dataclasses import dataclass, field


@dataclass
class Series:
    """The runs of one tool in one row; times in seconds, memory in MiB."""

    command: str
    wall: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def peak(self) -> float:
        return max(self.memory)


class RunFailed(Exception):
    """The measured command did not exit 0: no figure."""


def run_once(command: str, series: Series | None = None) -> None:
    """Run `command` (split as a shell would, no shell); into `series` if given."""
    started = time.perf_counter()
    process = subprocess.Popen(
        shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunFailed(
            f"{command!r} exited {process.returncode}: {complaint[-400:].decode(errors='replace')}"
        )
    if series is not None:
        series.wall.append(elapsed)
        series.memory.append(usage.ru_maxrss / 1024)


def alternate(commands: dict[str, str], prepare: dict[str, str], runs: int) -> dict[str, Series]:
    """`runs` rounds over all tools in turn, one warm-up round first; `prepare` is run untimed before each."""
    series = {tool: Series(command) for tool, command in commands.items()}
    for counted in range(runs + 1):
        for tool, command in commands.items():
            if tool in prepare:
                subprocess.run(
                    shlex.split(prepare[tool]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            os.sync()
            run_once(command, series[tool] if counted else None)
    return series


def ratio(ours: Series, theirs: Series) -> float:
    """The median of the ratios run by run: it holds when the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(ours.wall, theirs.wall))
