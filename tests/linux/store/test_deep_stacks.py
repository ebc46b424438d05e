"""More layers than one overlay takes (OVL_MAX_STACK is 500): images of many steps, in views and under containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.isolate import private_mounts
from runtime.sandbox.plan import Plan, RootFs
from runtime.sandbox.spawner import Spawner
from runtime.store.overlay import overlay
from tests.support.sandbox import busybox_rootfs

pytestmark = pytest.mark.linux


def layers(directory: Path, count: int) -> list[str]:
    """A busybox root and `count` layers on it, topmost first: each leaves a file, hides the one before, rewrites `last`."""
    stack = [str(busybox_rootfs(directory / "base"))]
    for number in range(count):
        layer = directory / "layers" / str(number)
        layer.mkdir(parents=True)
        (layer / f"f{number}").write_text(str(number))
        (layer / "last").write_text(str(number))
        if number:
            os.mknod(layer / f"f{number - 1}", 0o020000, os.makedev(0, 0))
        stack.insert(0, str(layer))
    return stack


@pytest.mark.parametrize("count", [150, 230, 499, 640])
def test_a_container_runs_on_any_number_of_layers(tmp_path: Path, count: int) -> None:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    rootfs = RootFs(layers(tmp_path, count), str(tmp_path / "upper"), str(tmp_path / "work"), volatile=True)
    plan = Plan(defaults.config(["/bin/sh", "-c", "echo f* $(cat last); echo x > new"]), rootfs)
    with Spawner.start() as spawner, open(tmp_path / "out", "w+b") as out:
        info = spawner.create(plan, -1, out.fileno(), out.fileno()).wait(60)
        out.seek(0)
        assert info is not None and info.code == 0, out.read()
        out.seek(0)
        assert out.read().decode().split() == [f"f{count - 1}", str(count - 1)]
    assert (tmp_path / "upper/new").read_text() == "x\n"


@pytest.mark.parametrize("count", [230, 640])
def test_a_view_shows_any_number_of_layers_and_leaves_no_mount(tmp_path: Path, count: int) -> None:
    stack = layers(tmp_path, count)
    for name in ("mnt", "empty", "upper", "work"):
        (tmp_path / name).mkdir()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            private_mounts()
            before = Path("/proc/self/mountinfo").read_text().count("\n")
            seen = []
            for upper, work in (("", ""), (str(tmp_path / "upper"), str(tmp_path / "work"))):
                with overlay(str(tmp_path / "mnt"), stack, upper, work, empty=str(tmp_path / "empty")) as top:
                    seen.append(sorted(name for name in os.listdir(top) if name.startswith("f")))
            after = Path("/proc/self/mountinfo").read_text().count("\n")
            os.write(write_end, repr((seen, after - before, os.listdir(tmp_path / "mnt"))).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as report:
        told = report.read()
    os.waitpid(pid, 0)
    assert told == repr(([[f"f{count - 1}"]] * 2, 0, []))
