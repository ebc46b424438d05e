"""A spawner that looks at the host before its first container, while its owner does something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.sandbox import defaults, server
from runtime.sandbox.cgroup import detect
from runtime.sandbox.plan import Plan, RootFs
from runtime.sandbox.spawner import Spawner
from tests.support.sandbox import busybox_rootfs

pytestmark = pytest.mark.linux


def runs(spawner: Spawner, root: Path) -> bool:
    info = spawner.create(Plan(defaults.config(["/bin/true"]), RootFs([str(root)]))).wait(60)
    return info is not None and info.code == 0


def test_containers_run_after_it_as_without_it(tmp_path: Path) -> None:
    root = busybox_rootfs(tmp_path / "root")
    with Spawner.start() as spawner:
        spawner.get_ready()
        spawner.get_ready()
        assert runs(spawner, root) and runs(spawner, root)


def test_groups_of_a_killed_spawner_are_gone_once_it_is_ready(tmp_path: Path) -> None:
    root = busybox_rootfs(tmp_path / "root")
    hierarchies = detect()
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    # Of a process that was never there: pid 1 did not start at the end of time.
    left = hierarchies.cgroup(f"pipe/{namespace}-1-{10**15}-1")
    left.create({})
    paths = [f"{mount}/{left.path}" for mount in hierarchies.mounts]
    try:
        assert any(os.path.isdir(path) for path in paths)
        with Spawner.start() as spawner:
            spawner.get_ready()
            assert runs(spawner, root)  # requests are served in order: it is ready now
            assert not any(os.path.isdir(path) for path in paths)
    finally:
        left.remove()


def test_what_goes_wrong_on_the_way_keeps_no_container_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = busybox_rootfs(tmp_path / "root")
    failures = [OSError(5, "no such luck")]

    def sweep(hierarchies: Any) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(server, "sweep", sweep)  # the helper is forked from us
    with Spawner.start() as spawner:
        spawner.get_ready()
        assert runs(spawner, root)
