"""Control groups and resource limits, judged by what happens to a program that asks for more."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.cgroup import detect
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import Json
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def limited(args: list[str], **resources: Json) -> Json:
    config = defaults.config(args)
    config["linux"]["resources"] |= resources
    return config


def needs(controller: str) -> None:
    if controller not in detect().by_controller:
        pytest.skip(f"this host has no {controller} controller")


def test_a_memory_hog_is_killed_and_it_is_said_why(box: Bench) -> None:
    needs("memory")
    limit: Json = {"limit": 16 << 20}
    if len(Path("/proc/swaps").read_text().splitlines()) > 1:
        limit["swap"] = 16 << 20
    config = limited(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1"], memory=limit)
    info, _ = box.run(box.plan(config=config))
    assert (info.code, info.oom_killed) == (137, True)


def test_a_program_within_its_memory_is_not_said_to_be_killed(box: Bench) -> None:
    needs("memory")
    info, _ = box.run(box.plan(config=limited(["sh", "-c", "exit 3"], memory={"limit": 64 << 20})))
    assert (info.code, info.oom_killed) == (3, False)


def test_more_processes_than_allowed_cannot_be_made(box: Bench) -> None:
    needs("pids")
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 60 & done; echo made all"
    info, output = box.run(box.plan(config=limited(["sh", "-c", script], pids={"limit": 5})))
    assert info.code != 0 and "made all" not in output
    assert "can't fork" in output or "Resource temporarily unavailable" in output


def test_the_kernel_has_the_numbers_that_were_asked_for(box: Bench) -> None:
    hierarchies = detect()
    for controller in ("memory", "cpu", "pids", "cpuset"):
        needs(controller)
    config = limited(
        ["cat"],
        memory={"limit": 64 << 20, "reservation": 32 << 20},
        cpu={"quota": 50000, "period": 100000, "shares": 512, "cpus": "0"},
        pids={"limit": 77},
    )
    config["linux"]["cgroupsPath"] = f"/pipe/test-{os.getpid()}-numbers"
    reader, writer = os.pipe()
    process = box.spawner.create(box.plan(config=config), reader)
    group = hierarchies.cgroup(config["linux"]["cgroupsPath"])
    try:
        assert process.pid in group.processes()
        files = {"memory": "64M"}
        if hierarchies.unified:
            files = {
                "memory.max": str(64 << 20),
                "pids.max": "77",
                "cpu.max": "50000 100000",
                "cpuset.cpus": "0",
            }
            found = {name: _read(f"{group.directories[0]}/{name}") for name in files}
        else:
            files = {
                "memory/memory.limit_in_bytes": str(64 << 20),
                "memory/memory.soft_limit_in_bytes": str(32 << 20),
                "cpu/cpu.cfs_quota_us": "50000",
                "cpu/cpu.cfs_period_us": "100000",
                "cpu/cpu.shares": "512",
                "cpuset/cpuset.cpus": "0",
                "pids/pids.max": "77",
            }
            found = {key: _read(f"{group.directory(key.split('/')[0])}/{key.split('/')[1]}") for key in files}
        assert found == files
        assert group.stats()["memory_limit"] == 64 << 20
        assert group.stats()["pids"] == 1
    finally:
        process.kill(signal.SIGKILL)
        process.wait(60)
        os.close(reader)
        os.close(writer)
    box.run(box.plan("true"))  # the spawner has removed the groups before it takes the next request
    assert not [directory for directory in group.directories if os.path.exists(directory)]


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def test_a_paused_container_stands_still(box: Bench) -> None:
    hierarchies = detect()
    if not hierarchies.unified:
        needs("freezer")
    inputs, outputs = os.pipe(), os.pipe()
    config = limited(["cat"])
    config["linux"]["cgroupsPath"] = f"/pipe/test-{os.getpid()}-pause"
    process = box.spawner.create(box.plan(config=config), inputs[0], outputs[1])
    group = hierarchies.cgroup(config["linux"]["cgroupsPath"])
    try:
        group.freeze(True)
        os.write(inputs[1], b"hello")
        assert _state(process.pid) == "D" or hierarchies.unified
        os.set_blocking(outputs[0], False)
        with pytest.raises(BlockingIOError):
            os.read(outputs[0], 10)
        group.freeze(False)
        os.set_blocking(outputs[0], True)
        assert os.read(outputs[0], 10) == b"hello"
    finally:
        process.kill(signal.SIGKILL)
        process.wait(60)
        for descriptor in (*inputs, *outputs):
            os.close(descriptor)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_a_limit_of_a_missing_controller_is_refused_by_name(box: Bench) -> None:
    hierarchies = detect()
    if hierarchies.unified or "net_cls" in hierarchies.by_controller:
        pytest.skip("this host has the controller")
    with pytest.raises(SandboxError, match="no net_cls controller") as caught:
        box.spawner.create(box.plan(config=limited(["true"], network={"classID": 1048577})))
    assert caught.value.kind == "unsupported"


def test_a_limit_the_kernel_refuses_is_an_error_with_the_value(box: Bench) -> None:
    needs("cpuset")
    with pytest.raises(SandboxError, match=r"cpuset.cpus = 4000"):
        box.spawner.create(box.plan(config=limited(["true"], cpu={"cpus": "4000"})))


def test_resource_limits_are_set(box: Bench) -> None:
    config = defaults.config([])
    config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    assert box.shell("ulimit -n; ulimit -Hn; ulimit -c", config).split() == ["64", "128", "0"]


def test_a_resource_limit_above_our_own_is_refused_where_we_may_not_raise_it(box: Bench) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    config = defaults.config(["true"])
    config["process"]["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": hard + 1, "hard": hard + 1}]
    if hard == resource.RLIM_INFINITY or _may_raise():
        pytest.skip("this process may raise any limit")
    with pytest.raises(SandboxError, match="RLIMIT_NPROC"):
        box.spawner.create(box.plan(config=config))


def _may_raise() -> bool:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) & 1 << 24)


def test_the_oom_score_is_set(box: Bench) -> None:
    config = defaults.config([])
    config["process"]["oomScoreAdj"] = 321
    assert box.shell("cat /proc/self/oom_score_adj", config).strip() == "321"


def test_a_container_in_a_shared_pid_namespace_is_killed_as_a_whole(box: Bench) -> None:
    config = limited(["sh", "-c", "sleep 600 & sleep 601 & echo up; wait"])
    config["linux"]["namespaces"] = [
        space for space in config["linux"]["namespaces"] if space["type"] != "pid"
    ]
    reader, writer = os.pipe()
    process = box.spawner.create(box.plan(config=config), -1, writer)
    os.close(writer)
    assert os.read(reader, 10) == b"up\n"
    process.kill(signal.SIGKILL)
    assert os.read(reader, 10) == b""
    os.close(reader)
    info = process.wait(60)
    assert info is not None and info.code == 137


def test_usage_is_counted(box: Bench) -> None:
    needs("memory")
    config = limited(["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; cat"])
    config["linux"]["cgroupsPath"] = f"/pipe/test-{os.getpid()}-usage"
    inputs, outputs = os.pipe(), os.pipe()
    process = box.spawner.create(box.plan(config=config), inputs[0], outputs[1])
    try:
        assert os.read(outputs[0], 10) == b"done\n"
        stats = detect().cgroup(config["linux"]["cgroupsPath"]).stats()
        assert stats["memory"] > 0 and stats["cpu_nanoseconds"] > 0
    finally:
        process.kill(signal.SIGKILL)
        process.wait(60)
        for descriptor in (*inputs, *outputs):
            os.close(descriptor)
