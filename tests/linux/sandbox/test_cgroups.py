"""`runtime.cgroups`, what the rooms above use of control groups."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from runtime import cgroups
from runtime.errors import InvalidInput, Unsupported
from runtime.sandbox import defaults
from runtime.sandbox.spawner import Process
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


@pytest.fixture
def path() -> str:
    return f"/pipe/test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def running(box: Bench, path: str) -> Iterator[Process]:
    config = defaults.config(["sleep", "600"])
    config["linux"]["cgroupsPath"] = path
    process = box.spawner.create(box.plan(config=config))
    yield process
    process.kill()
    process.wait(60)


def test_usage_limits_and_processes_of_a_running_container(running: Process, path: str) -> None:
    controllers = cgroups.hierarchies().by_controller
    if not {"memory", "pids"} <= set(controllers):
        pytest.skip("no memory or pids controller")
    assert cgroups.processes(path) == [running.pid]
    cgroups.update(path, {"memory": {"limit": 64 << 20}})
    usage = cgroups.usage(path)
    assert usage.memory_limit == 64 << 20
    assert usage.pids == 1 and usage.memory > 0 and usage.oom_kills == 0


def test_pausing_twice_and_unpausing_twice_is_no_error(running: Process, path: str) -> None:
    if not cgroups.hierarchies().unified and "freezer" not in cgroups.hierarchies().by_controller:
        pytest.skip("no freezer")
    for _ in range(2):
        cgroups.pause(path)
    for _ in range(2):
        cgroups.unpause(path)
    assert running.wait(0.01) is None


def test_removing_ends_what_is_left_inside_and_removing_again_does_nothing(
    running: Process, path: str
) -> None:
    cgroups.remove(path)
    info = running.wait(60)
    assert info is not None and info.code == 137
    cgroups.remove(path)
    directories = cgroups.hierarchies().cgroup(path).directories
    assert not [directory for directory in directories if os.path.exists(directory)]


def test_faults_arrive_in_the_shared_categories(running: Process, path: str) -> None:
    if "cpuset" in cgroups.hierarchies().by_controller:
        with pytest.raises(InvalidInput):
            cgroups.update(path, {"cpu": {"cpus": "4000"}})
    if "hugetlb" not in cgroups.hierarchies().by_controller:
        with pytest.raises(Unsupported):
            cgroups.update(path, {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]})
