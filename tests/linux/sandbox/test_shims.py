"""Processes that outlive the one that asked for them."""

from __future__ import annotations

import os
import select
import signal

import pytest

from runtime.sandbox.errors import SandboxError
from runtime.sandbox.spawner import Spawner

pytestmark = pytest.mark.linux


def report(argument: dict[str, object], fds: list[int]) -> int:
    """What a shim finds about itself; runs in the shim."""
    with open("/proc/self/stat") as file:
        stat = file.read().rpartition(")")[2].split()
    held = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    leader = os.getpid() == int(stat[3])
    os.write(fds[0], f"{argument['word']} {leader} {len(held)} {os.readlink('/proc/self/fd/0')}\n".encode())
    signal.pause()
    return 0


def test_a_shim_outlives_its_spawner_and_holds_nothing_of_it() -> None:
    reader, writer = os.pipe()
    with Spawner.start() as spawner:
        shim = spawner.shim("tests.linux.sandbox.test_shims:report", {"word": "hello"}, [writer])
    os.close(writer)
    pidfd = os.pidfd_open(shim.pid)
    try:
        word, leader, held, stdin = os.read(reader, 1000).decode().split()
        assert (word, leader, stdin) == ("hello", "True", "/dev/null")
        assert int(held) <= 5  # 0, 1, 2, the pipe, and the directory being listed
        assert select.select([pidfd], [], [], 0)[0] == []
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        # The pipe's other end closes with the last process that holds it.
        assert os.read(reader, 1) == b""
        os.close(pidfd)
        os.close(reader)


def test_an_entry_that_cannot_be_imported_is_an_error() -> None:
    with Spawner.start() as spawner, pytest.raises(SandboxError, match="no_such_module"):
        spawner.shim("no_such_module:main", {})
