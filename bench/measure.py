"""One timed run of a whole process, and what several alternated runs say.

The clock and the peak memory are the kernel's (wait4): wall time from fork to exit, and the largest resident set of the
process and the children it waited for. A daemon's own work is not in the memory figure of its client.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.memory import Daemon

_COMPLAINT = 300  # characters of it are shown
_LIMIT = 1800  # seconds; what takes longer hangs
Prepare = Callable[[str], None]  # called with the tool that is about to run; not timed


@dataclass
class Series:
    """The runs of one tool in one row; times in seconds, memory in MiB. With a `failure` there is no figure."""

    command: str
    wall: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    daemon: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def peak(self) -> float:
        return max(self.memory)


class RunFailed(Exception):
    """The measured command did not exit 0: no figure."""


def environment() -> dict[str, str]:
    """Ours, without what keeps Python from using compiled modules: nobody's users run it so."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def start(command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        shlex.split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def finish(process: subprocess.Popen[bytes], command: str) -> float:
    """Wait for it; its peak memory in MiB."""
    assert process.stderr is not None
    impatient = threading.Timer(_LIMIT, process.kill)
    impatient.start()
    try:
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        impatient.cancel()
        process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = complaint[-_COMPLAINT:].decode(errors="replace").strip()
        raise RunFailed(f"{command!r} exited {process.returncode}: {said}")
    return usage.ru_maxrss / 1024


def run_once(command: str, series: Series | None = None, daemon: Daemon | None = None) -> None:
    """Run `command` (split as a shell would, no shell); into `series` if given."""
    if daemon is not None:
        daemon.forget_peak()
    started = time.perf_counter()
    peak = finish(start(command), command)
    elapsed = time.perf_counter() - started
    if series is not None:
        series.wall.append(elapsed)
        series.memory.append(peak)
        if daemon is not None:
            series.daemon.append(daemon.peak())


def run_quietly(command: str) -> None:
    """Run without a look at how it ends: what shall be removed may not be there."""
    subprocess.run(
        shlex.split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )


def alternate(
    commands: Mapping[str, str], prepare: Prepare, runs: int, daemons: Mapping[str, Daemon] | None = None
) -> dict[str, Series]:
    """`runs` rounds over all tools in turn, one warm-up round first. A tool that fails once takes no further part."""
    series = {tool: Series(command) for tool, command in commands.items()}
    for counted in range(runs + 1):
        for tool, command in commands.items():
            if series[tool].failure:
                continue
            try:
                prepare(tool)
                os.sync()
                run_once(command, series[tool] if counted else None, (daemons or {}).get(tool))
            except (RunFailed, OSError) as error:
                series[tool].failure = str(error)
    return series


def ratio(ours: Series, theirs: Series) -> float:
    """The median of the ratios run by run: it holds when the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(ours.wall, theirs.wall))
