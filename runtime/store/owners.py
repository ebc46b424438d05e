"""Who made or uses something: a process, told apart from later ones that get the same pid.

A token is `boot.pidns.pid.start`, and may have further parts that tell things of one process apart. Its process is dead when the machine was booted since, or when that pid is free or was
started at another time. Of a process in another pid namespace nothing can be said, so it counts as alive until the
next boot.
"""

from __future__ import annotations

import functools
import os


@functools.cache
def boot_id() -> str:
    """Random for every boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().decode().strip().replace("-", "")[:12]


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid").partition("[")[2].rstrip("]")


def _start_of(pid: int) -> str | None:
    """Clock ticks after boot at which `pid` was started (proc(5), field 22); None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


_own: tuple[int, str] = (0, "")


def own_token() -> str:
    """The token of this process; made anew after a fork."""
    global _own
    pid = os.getpid()
    if _own[0] != pid:
        _own = (pid, f"{boot_id()}.{_pid_namespace()}.{pid}.{_start_of(pid) or 0}")
    return _own[1]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    return _start_of(pid) is not None


def is_alive(token: str) -> bool:
    """Whether the process behind `token` may still be working."""
    try:
        boot, namespace, pid, start = token.split(".")[:4]
        number = int(pid)
    except ValueError:
        return False
    if boot != boot_id():
        return False
    return namespace != _pid_namespace() or _start_of(number) == start
