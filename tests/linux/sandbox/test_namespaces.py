"""Namespaces: own, shared with another container, or the host's; and a private view of mounts for the owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.plan import Json
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux
ROOT = str(Path(__file__).resolve().parents[3])


def with_namespace(kind: str, path: str | None) -> Json:
    """Default namespaces, but this one is the host's (None) or the one at `path`."""
    config = defaults.config([])
    spaces = [space for space in config["linux"]["namespaces"] if space["type"] != kind]
    config["linux"]["namespaces"] = spaces + ([{"type": kind, "path": path}] if path else [])
    return config


NAMES = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}


@pytest.mark.parametrize("kind", NAMES)
def test_a_namespace_that_is_not_listed_is_the_hosts(box: Bench, kind: str) -> None:
    output = box.shell(f"readlink /proc/self/ns/{NAMES[kind]}", with_namespace(kind, None))
    assert output.strip() == os.readlink(f"/proc/self/ns/{NAMES[kind]}")


@pytest.mark.parametrize("kind", NAMES)
def test_a_namespace_of_another_container_can_be_joined(box: Bench, kind: str) -> None:
    reader, writer = os.pipe()
    first = box.spawner.create(box.plan("cat"), reader)
    try:
        path = f"/proc/{first.pid}/ns/{NAMES[kind]}"
        output = box.shell(f"readlink /proc/self/ns/{NAMES[kind]}", with_namespace(kind, path))
        assert output.strip() == os.readlink(path)
        # The spawner itself has stayed where it was.
        assert os.readlink(f"/proc/{box.spawner.pid}/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
    finally:
        first.kill(9)
        first.wait(60)
        os.close(reader)
        os.close(writer)


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/time"), reason="no time namespaces")
def test_the_clock_since_boot_can_be_the_containers_own(box: Bench) -> None:
    config = defaults.config([])
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000_000}}
    link, uptime = box.shell("readlink /proc/self/ns/time; cut -d. -f1 /proc/uptime", config).split()
    assert link != os.readlink("/proc/self/ns/time")
    assert int(uptime) > 1_000_000_000


def test_a_label_without_its_security_module_is_noted_and_no_error(box: Bench) -> None:
    if os.path.exists("/proc/self/attr/apparmor/exec"):
        pytest.skip("this host has AppArmor")
    config = defaults.config(["true"])
    config["process"]["apparmorProfile"] = "docker-default"
    process = box.spawner.create(box.plan(config=config))
    assert process.notes == ["this host has no AppArmor: apparmorProfile 'docker-default' is not applied"]
    process.wait(60)


PRIVATE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from runtime.linux import mounts
from runtime.sandbox import defaults
from runtime.sandbox.isolate import private_mounts
from runtime.sandbox.plan import Plan, RootFs
from runtime.sandbox.spawner import Spawner

lower, base = sys.argv[2:4]
with Spawner.start() as spawner:
    home = os.readlink("/proc/self/ns/mnt")
    private_mounts(spawner)
    os.mkdir(f"{base}/data"), os.mkdir(f"{base}/upper"), os.mkdir(f"{base}/work")
    mounts.mount("tmpfs", f"{base}/data", "tmpfs")
    with open(f"{base}/data/file", "w") as file:
        file.write("only here\\n")
    config = defaults.config(["cat", "/data/file"])
    config["mounts"].append({"destination": "/data", "type": "bind", "source": f"{base}/data", "options": ["rbind"]})
    process = spawner.create(Plan(config, RootFs([lower], f"{base}/upper", f"{base}/work")), -1, 1, 2)
    assert process.wait(60).code == 0
    reader, writer = os.pipe()
    shim = spawner.shim("tests.linux.sandbox.test_namespaces:say_mount_namespace", {}, [writer])
    os.close(writer)
    print(os.read(reader, 100).decode() == home, flush=True)
"""


def say_mount_namespace(argument: Json, fds: list[int]) -> int:
    """Runs in a shim."""
    os.write(fds[0], os.readlink("/proc/self/ns/mnt").encode())
    return 0


def test_mounts_of_a_private_owner_reach_its_containers_and_nobody_else(box: Bench, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PRIVATE, ROOT, str(box.lower), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    # The container sees the mount, the shim is back in the host's namespace, and the host never saw it.
    assert (result.stdout, result.returncode) == ("only here\nTrue\n", 0), result.stderr
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(tmp_path / "data") == []
