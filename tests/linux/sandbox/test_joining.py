"""A further process in a running container: it must be in nothing less than the first one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import Json
from runtime.sandbox.spawner import Process
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


@pytest.fixture
def running(box: Bench, seccomp_program: str) -> Iterator[Process]:
    reader, writer = os.pipe()
    config = defaults.config(["cat"], hostname="target")
    process = box.spawner.create(box.plan(config=config, seccomp=seccomp_program), reader)
    try:
        yield process
    finally:
        process.kill(signal.SIGKILL)
        process.wait(60)
        os.close(reader)
        os.close(writer)


def process_of(*args: str) -> Json:
    process: Json = defaults.config(list(args))["process"]
    return process


def output_of(box: Bench, running: Process, process: Json, seccomp: str = "") -> tuple[int, str]:
    with open(box.directory / "joined", "w+b") as output:
        joined = box.spawner.join(running.pid, process, -1, output.fileno(), output.fileno(), seccomp=seccomp)
        info = joined.wait(60)
        assert info is not None
        output.seek(0)
        return info.code, output.read().decode()


def test_it_is_in_all_namespaces_and_groups_of_the_first(
    box: Bench, running: Process, seccomp_program: str
) -> None:
    kinds = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    script = "hostname; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup"
    code, output = output_of(box, running, process_of("sh", "-c", script), seccomp_program)
    assert code == 0
    name, *links = output.split()
    assert name == "target"
    assert links[:6] == [os.readlink(f"/proc/{running.pid}/ns/{kind}") for kind in kinds]
    # Inside its own cgroup namespace every group is the root of it.
    assert all(line.endswith(":/") for line in links[6:])


def test_it_is_as_confined_as_the_first(box: Bench, running: Process, seccomp_program: str) -> None:
    _, output = output_of(box, running, process_of("cat", "/proc/self/status"), seccomp_program)
    assert "CapEff:\t00000000a80425fb" in output and "Seccomp:\t2" in output


def test_it_has_its_own_user_directory_and_environment(box: Bench, running: Process) -> None:
    process = process_of("sh", "-c", "id -u; pwd; echo $GREETING $HOME")
    process |= {"user": {"username": "alice"}, "cwd": "/tmp"}
    process["env"].append("GREETING=hello")
    assert output_of(box, running, process) == (0, "1000\n/tmp\nhello /home/alice\n")


def test_a_missing_program_is_127_and_the_container_goes_on(box: Bench, running: Process) -> None:
    joined = box.spawner.join(running.pid, process_of("nothing-here"))
    info = joined.wait(60)
    assert info is not None and info.code == 127 and "not found" in info.error
    assert running.wait(0.01) is None


def test_it_dies_with_the_container(box: Bench, running: Process) -> None:
    reader, writer = os.pipe()
    joined = box.spawner.join(running.pid, process_of("sleep", "600"), -1, writer)
    os.close(writer)
    running.kill(signal.SIGKILL)
    info = joined.wait(60)
    assert info is not None and info.code == 137
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_joining_what_has_ended_is_an_error(box: Bench, running: Process) -> None:
    running.kill(signal.SIGKILL)
    running.wait(60)
    with pytest.raises(SandboxError):
        box.spawner.join(running.pid, process_of("true"))


def test_no_descriptor_of_ours_reaches_it(box: Bench, running: Process) -> None:
    _, output = output_of(box, running, process_of("ls", "-l", "/proc/self/fd"))
    assert "socket" not in output
    assert Path(f"/proc/{running.pid}/fd").exists()
