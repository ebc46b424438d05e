"""Whatever is killed, and whenever: no process, mount or control group stays."""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.sandbox.cgroup import detect
from runtime.sandbox.cgroup.sweep import sweep
from runtime.sandbox.spawner import Spawner
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux
PATIENCE = 60.0


def groups_of(spawner_pid: int) -> list[str]:
    """Control groups named after a spawner."""
    found = []
    for mount in detect().mounts:
        top = Path(mount) / "pipe"
        found += [str(path) for path in top.glob(f"*-{spawner_pid}-*-*")] if top.exists() else []
    return found


def is_gone(pid: int) -> bool:
    """No process of this id, or one that has ended and waits for whoever adopted it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def wait_until_gone(pids: list[int]) -> None:
    """Through pidfds: the kernel wakes us when each has ended."""
    deadline = time.monotonic() + PATIENCE
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(max(0.0, deadline - time.monotonic()) * 1000), f"process {pid} is still there"
        finally:
            os.close(pidfd)


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_thirty_containers_killed_at_random_moments_leave_nothing(box: Bench) -> None:
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    with Spawner.start() as spawner:
        pids = []
        chance = random.Random(1)
        for number in range(30):
            process = spawner.create(box.plan("sh", "-c", "sleep 600 & wait"), pause=number % 3 == 0)
            pids.append(process.pid)
            if chance.random() < 0.5:
                process.wait(chance.random() * 0.01)
            process.kill(signal.SIGKILL)
            if chance.random() < 0.5:
                process.wait(PATIENCE)
            del process
        open_inside = len(os.listdir(f"/proc/{spawner.pid}/fd"))
        helper = spawner.pid
    wait_until_gone([*pids, helper])
    assert all(is_gone(pid) for pid in pids)
    assert groups_of(helper) == []
    assert str(box.directory) not in Path("/proc/self/mountinfo").read_text()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert open_inside < 12 + 30 * 3


def test_the_spawner_keeps_no_descriptor_of_what_has_ended(box: Bench) -> None:
    with Spawner.start() as spawner:
        assert spawner.create(box.plan("true")).wait(PATIENCE)
        assert spawner.create(box.plan("true")).wait(PATIENCE)
        first = len(os.listdir(f"/proc/{spawner.pid}/fd"))
        for _ in range(10):
            assert spawner.create(box.plan("true")).wait(PATIENCE)
        # The last one may still be about to be cleared away.
        assert len(os.listdir(f"/proc/{spawner.pid}/fd")) <= first + 2


OWNER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from runtime.sandbox import defaults
from runtime.sandbox.plan import Plan, RootFs
from runtime.sandbox.spawner import Spawner
spawner = Spawner.start()
processes = []
for number in range(3):
    upper, work = f"{sys.argv[3]}/u{number}", f"{sys.argv[3]}/w{number}"
    os.mkdir(upper), os.mkdir(work)
    plan = Plan(defaults.config(["sh", "-c", "sleep 600 & wait"]), RootFs([sys.argv[2]], upper, work))
    processes.append(spawner.create(plan, pause=number == 2))
print(spawner.pid, *(process.pid for process in processes), flush=True)
sys.stdin.read()
"""
ROOT = str(Path(__file__).resolve().parents[3])


def start_owner(box: Bench, directory: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A separate process that has three containers: two running, one paused. Returns it and [spawner, containers…]."""
    command = [sys.executable, "-c", OWNER, ROOT, str(box.lower), str(directory)]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    return owner, [int(word) for word in owner.stdout.readline().split()]


def end_owner(owner: subprocess.Popen[str]) -> None:
    assert owner.stdin is not None and owner.stdout is not None
    owner.kill()
    owner.wait(PATIENCE)
    owner.stdin.close()
    owner.stdout.close()


def test_an_owner_killed_outright_takes_everything_with_it(box: Bench, tmp_path: Path) -> None:
    owner, pids = start_owner(box, tmp_path)
    try:
        assert len(pids) == 4 and len(groups_of(pids[0])) >= 3
    finally:
        end_owner(owner)
    wait_until_gone(pids)
    assert groups_of(pids[0]) == []


def test_a_spawner_killed_outright_takes_its_containers_and_the_sweep_the_rest(
    box: Bench, tmp_path: Path
) -> None:
    owner, pids = start_owner(box, tmp_path)
    try:
        os.kill(pids[0], signal.SIGKILL)
        wait_until_gone(pids)
        assert groups_of(pids[0]) != []
    finally:
        end_owner(owner)
    # The killed spawner was the owner's child: only when that is gone, too, is its pid nobody's.
    deadline = time.monotonic() + PATIENCE
    while groups_of(pids[0]) and time.monotonic() < deadline:
        sweep(detect())
    assert groups_of(pids[0]) == []


def test_the_sweep_leaves_the_groups_of_the_living_alone(box: Bench) -> None:
    reader, writer = os.pipe()
    with Spawner.start() as spawner:
        process = spawner.create(box.plan("cat"), reader)
        assert groups_of(spawner.pid)
        sweep(detect())
        assert groups_of(spawner.pid)
        os.close(writer)
        info = process.wait(PATIENCE)
        assert info is not None and info.code == 0
    os.close(reader)


def test_a_paused_container_holds_no_line_but_its_own(box: Bench) -> None:
    """It would otherwise never learn that its spawner died before it asked for a signal on that (prctl(2))."""
    with Spawner.start() as spawner:
        paused = [spawner.create(box.plan("true"), pause=True) for _ in range(3)]
        for process in paused:
            deadline = time.monotonic() + PATIENCE
            while (count := sockets_of(process.pid)) != 1 and time.monotonic() < deadline:
                time.sleep(0.005)
            assert count == 1


def sockets_of(pid: int) -> int:
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(path))
        except FileNotFoundError:
            continue
    return sum(link.startswith("socket:") for link in links)
