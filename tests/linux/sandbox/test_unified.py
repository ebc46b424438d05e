"""Version two of control groups, wherever the kernel has it mounted, even without controllers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.cgroup import Cgroup, Hierarchies, device_program
from runtime.sandbox.cgroup.v2 import V2
from runtime.sandbox.errors import SandboxError

pytestmark = pytest.mark.linux


def unified_mount() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.partition(" - ")[2].startswith("cgroup2 "):
            return line.split()[4]
    pytest.skip("no cgroup2 is mounted")


@pytest.fixture
def group() -> Iterator[Cgroup]:
    mount = unified_mount()
    group = Hierarchies({mount: ()}, True, V2()).cgroup(f"pipe-test-{uuid.uuid4().hex[:12]}/inner")
    try:
        group.create({})
    except OSError as error:
        pytest.skip(f"no group can be made: {error}")
    yield group
    group.kill()
    group.remove()
    os.rmdir(os.path.dirname(group.directories[0]))


@pytest.fixture
def sleeper(group: Cgroup) -> Iterator[subprocess.Popen[bytes]]:
    # It has no child before it is in the group: one that stays outside would outlive us.
    process = subprocess.Popen(
        ["/bin/busybox", "sh", "-c", "read go; sleep 600 & wait"], stdin=subprocess.PIPE
    )
    group.enter(process.pid)
    assert process.stdin is not None
    with process.stdin as line:
        line.write(b"\n")
    yield process
    process.kill()
    process.wait(60)


def test_killing_a_group_ends_everything_in_it(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.pid in group.processes()
    pidfd = os.pidfd_open(sleeper.pid)
    group.kill()
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
    assert sleeper.wait(60) == -signal.SIGKILL


def test_a_frozen_group_stands_still_until_it_is_thawed(
    group: Cgroup, sleeper: subprocess.Popen[bytes]
) -> None:
    group.freeze(True)
    assert "frozen 1" in Path(group.directories[0], "cgroup.events").read_text()
    group.freeze(False)
    assert "frozen 0" in Path(group.directories[0], "cgroup.events").read_text()


def test_a_limit_without_its_controller_is_refused_by_name(group: Cgroup) -> None:
    if Path(group.directories[0], "memory.max").exists():
        pytest.skip("this host has the memory controller in version two")
    with pytest.raises(SandboxError, match="no memory controller"):
        group.update({"memory": {"limit": 1 << 20}})


def test_devices_outside_the_list_cannot_be_opened(group: Cgroup, tmp_path: Path) -> None:
    try:
        device_program.attach(group.directories[0], defaults.device_rules())
    except SandboxError as error:
        pytest.skip(str(error))
    os.mknod(tmp_path / "kmsg", 0o600 | 0o020000, os.makedev(1, 11))
    script = f"echo $$ > {group.directories[0]}/cgroup.procs; : < /dev/null && echo null; : < {tmp_path}/kmsg && echo kmsg"
    result = subprocess.run(
        ["/bin/busybox", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "null\n" and "Operation not permitted" in result.stderr
