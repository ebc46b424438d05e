"""Many at once, from many threads, killed whenever. A fast sample runs always, the rest with `make test-slow`."""

from __future__ import annotations

import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.plan import Plan, RootFs
from runtime.sandbox.spawner import Spawner
from tests.linux.sandbox.test_leaks import end_owner, groups_of, start_owner, wait_until_gone
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def one(spawner: Spawner, lower: Path, directory: Path, number: int) -> int:
    """Start, perhaps pause, perhaps kill; the exit code, which says which of them it was."""
    chance = random.Random(number)
    upper, work = directory / f"upper{number}", directory / f"work{number}"
    upper.mkdir()
    work.mkdir()
    config = defaults.config(["sh", "-c", f"echo {number} > /file; exit {number % 50}"])
    pause = chance.random() < 0.3
    process = spawner.create(Plan(config, RootFs([str(lower)], str(upper), str(work))), pause=pause)
    if chance.random() < 0.3:
        process.wait(chance.random() * 0.02)
        process.kill(signal.SIGKILL)
        info = process.wait(120)
        assert info is not None and info.code in (137, number % 50)
        return -1
    if pause:
        process.release()
    info = process.wait(120)
    assert info is not None and not info.error
    assert (upper / "file").read_text() == f"{number}\n"
    return info.code


def run_many(box: Bench, directory: Path, count: int, threads: int) -> None:
    with Spawner.start() as spawner:
        pid = spawner.pid
        with ThreadPoolExecutor(threads) as pool:
            codes = list(pool.map(lambda number: one(spawner, box.lower, directory, number), range(count)))
    assert all(code in (-1, number % 50) for number, code in enumerate(codes))
    wait_until_gone([pid])
    assert groups_of(pid) == []
    assert threading.active_count() < 20


def test_threads_share_a_spawner(box: Bench, tmp_path: Path) -> None:
    run_many(box, tmp_path, count=40, threads=6)


@pytest.mark.slow
def test_threads_share_a_spawner_for_long(box: Bench, tmp_path: Path) -> None:
    run_many(box, tmp_path, count=2000, threads=16)


@pytest.mark.slow
def test_fifty_owners_killed_at_random_moments_leave_nothing(box: Bench, tmp_path: Path) -> None:
    for number in range(50):
        directory = tmp_path / str(number)
        directory.mkdir()
        owner, pids = start_owner(box, directory)
        end_owner(owner)
        wait_until_gone(pids)
        assert groups_of(pids[0]) == []
