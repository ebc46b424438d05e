"""A terminal of the container's own."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.plan import Json
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def with_terminal(*args: str) -> Json:
    config = defaults.config(list(args))
    config["process"]["terminal"] = True
    config["process"]["consoleSize"] = {"height": 33, "width": 101}
    return config


def read_all(master: int) -> str:
    """A pty's master ends with EIO once the last holder of the slave is gone."""
    parts = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            part = b""
        if not part:
            os.close(master)
            return parts.decode().replace("\r\n", "\n")
        parts += part


def test_the_program_has_a_controlling_terminal_of_the_size_given(box: Bench) -> None:
    process = box.spawner.create(
        box.plan(config=with_terminal("sh", "-c", "tty; stty size; ls -l /dev/console; echo x > /dev/tty"))
    )
    output = read_all(process.terminal)
    assert output.startswith("/dev/pts/0\n33 101\n")
    assert "/dev/console" in output and output.endswith("x\n")
    info = process.wait(60)
    assert info is not None and info.code == 0


def test_what_is_typed_arrives_and_resizing_is_seen(box: Bench) -> None:
    process = box.spawner.create(
        box.plan(config=with_terminal("sh", "-c", "read line; echo got:$line; stty size"))
    )
    fcntl.ioctl(process.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    os.write(process.terminal, b"hello\n")
    output = read_all(process.terminal)
    assert "got:hello\n10 20\n" in output
    process.wait(60)


def test_an_interrupt_typed_reaches_the_program(box: Bench) -> None:
    script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do read line; done"
    process = box.spawner.create(box.plan(config=with_terminal("sh", "-c", script)))
    seen = b""
    while b"ready" not in seen:
        seen += os.read(process.terminal, 100)
    os.write(process.terminal, b"\x03")
    assert "interrupted" in read_all(process.terminal)
    info = process.wait(60)
    assert info is not None and info.code == 7


def test_a_plain_user_owns_its_terminal(box: Bench) -> None:
    config = with_terminal("sh", "-c", "echo x > $(tty) && stat -c %u $(tty)")
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    process = box.spawner.create(box.plan(config=config))
    assert read_all(process.terminal) == "x\n1000\n"
    process.wait(60)


def test_a_joined_process_can_have_a_terminal_too(box: Bench) -> None:
    reader, writer = os.pipe()
    first = box.spawner.create(box.plan("cat"), reader)
    joined = box.spawner.join(first.pid, with_terminal("sh", "-c", "tty; stty size")["process"])
    assert read_all(joined.terminal) == "/dev/pts/0\n33 101\n"
    joined.wait(60)
    first.kill(9)
    first.wait(60)
    os.close(reader)
    os.close(writer)
