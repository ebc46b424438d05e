"""A first process that was made before its plan was known makes the same container as one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux import mounts
from runtime.sandbox import defaults
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import Json, Plan
from runtime.sandbox.spawner import Spawner
from tests.linux.sandbox.test_leaks import children_of, groups_of, is_gone, wait_until_gone
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux

# All that the kernel says from inside which does not differ from one container to the next.
FACTS = """
cut -d' ' -f4- /proc/self/mountinfo | sed 's/upperdir=[^,]*,workdir=[^,]*//; s/ master:[0-9]*//' | sort
grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|Uid)' /proc/self/status
ls -ln /dev | awk '{print $1, $3, $4, $5, $6, $NF}'
cut -d: -f2- /proc/self/cgroup
cat /proc/self/timens_offsets; ls /proc/self/fd; hostname; cat /proc/1/comm; ulimit -a
touch /sys/fs/cgroup/x /proc/sys/x /dev/x; cat /proc/kcore | wc -c; id; pwd
cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Bench]:
    with Spawner.start() as spawner:
        spawner.get_ready()
        yield Bench(tmp_path, spawner)


def config(*args: str, group: str = "pipe/") -> Json:
    made = defaults.config(list(args), hostname="made")
    made["linux"]["cgroupsPath"] = group
    made["linux"]["namespaces"].append({"type": "time"})
    return made


def waiting(spawner: Spawner) -> list[int]:
    """Processes the spawner has before it was asked for a container; a request is answered when those before it are."""
    with pytest.raises(SandboxError, match=r"process.args is empty"):
        spawner.create(Plan({"process": {}}))
    return children_of(spawner.pid)


def shell(bench: Bench, script: str, of: Json) -> str:
    info, output = bench.run(
        bench.plan(config=of | {"process": of["process"] | {"args": ["sh", "-c", script]}})
    )
    assert info.code == 0, output
    return output


def test_the_kernel_says_the_same_of_both(fresh: Bench, seccomp_program: str) -> None:
    limits = {"devices": defaults.device_rules(), "memory": {"limit": 64 << 20}}
    found = []
    for ahead in (False, True):
        wanted = config("sh", "-c", FACTS)
        wanted["linux"]["resources"] = limits
        if ahead:
            fresh.spawner.get_ahead(wanted)
            (first,) = waiting(fresh.spawner)
        info, output = fresh.run(fresh.plan(config=wanted, seccomp=seccomp_program))
        assert info.code == 0
        found.append(output)
        if ahead:
            assert is_gone(first)
    assert found[0] == found[1]
    assert "Seccomp:\t2" in found[0] and "overlay" in found[0] and str(64 << 20) in found[0]


def test_one_is_made_while_another_that_will_have_more_runs(fresh: Bench) -> None:
    ends = os.pipe()
    try:
        plan = fresh.plan(config=config("sh", "-c", "echo $HOSTNAME; read line < /dev/null; true"))
        process = fresh.spawner.create_step(plan, ends[1], ends[1], more=True)
        assert process.wait(60) is not None
        (next_one,) = waiting(fresh.spawner)
        assert shell(fresh, "echo second", config()) == "second\n"
        assert is_gone(next_one)
        assert waiting(fresh.spawner) == []
    finally:
        for end in ends:
            os.close(end)


def test_a_plan_that_is_not_like_it_is_started_without_it(fresh: Bench) -> None:
    fresh.spawner.get_ahead(config())
    (first,) = waiting(fresh.spawner)
    other = config()
    other["linux"]["resources"] = {"pids": {"limit": 7}}
    with_network = config(group="")
    assert shell(fresh, "echo other", other) == "other\n"
    assert shell(fresh, "echo named", with_network) == "named\n"
    assert waiting(fresh.spawner) == [first]
    assert shell(fresh, "echo like it", config()) == "like it\n"
    assert is_gone(first)


def test_a_plan_with_devices_and_mounts_of_its_own_gets_them(fresh: Bench, tmp_path: Path) -> None:
    fresh.spawner.get_ahead(config())
    waiting(fresh.spawner)
    (tmp_path / "given").write_text("given\n")
    wanted = config()
    wanted["mounts"][1]["options"].remove("size=65536k")
    wanted["mounts"].append(
        {
            "destination": "/new/given",
            "type": "bind",
            "source": str(tmp_path / "given"),
            "options": ["bind", "ro"],
        }
    )
    script = "cat /new/given; ls /dev/null /dev/pts/ptmx; grep -c ' /dev ' /proc/self/mountinfo"
    assert shell(fresh, script, wanted).split() == ["given", "/dev/null", "/dev/pts/ptmx", "1"]


def test_what_is_mounted_after_it_was_made_can_be_bound(fresh: Bench, tmp_path: Path) -> None:
    place = tmp_path / "later"
    place.mkdir()
    fresh.spawner.get_ahead(config())
    (first,) = waiting(fresh.spawner)
    mounts.mount("tmpfs", str(place), "tmpfs")
    try:
        (place / "secret").write_text("seen")
        wanted = config()
        wanted["mounts"].append(
            {"destination": "/later", "type": "bind", "source": str(place), "options": ["rbind"]}
        )
        assert shell(fresh, "cat /later/secret", wanted) == "seen"
        assert is_gone(first)
    finally:
        mounts.umount(str(place), mounts.MNT_DETACH)


def test_one_that_was_killed_keeps_no_container_from_running(fresh: Bench) -> None:
    for _ in range(5):
        fresh.spawner.get_ahead(config())
        (first,) = waiting(fresh.spawner)
        os.kill(first, signal.SIGKILL)
        wait_until_gone([first])
        assert shell(fresh, "echo runs", config()) == "runs\n"
        assert is_gone(first)


def test_a_plan_too_long_for_its_line_is_started_without_it(fresh: Bench) -> None:
    fresh.spawner.get_ahead(config())
    waiting(fresh.spawner)
    wanted = config()
    wanted["process"]["env"] += [f"LONG{number}={'x' * 1000}" for number in range(300)]
    assert shell(fresh, "echo ${#LONG299}", wanted) == "1000\n"
    assert waiting(fresh.spawner) == []


def test_what_a_container_like_it_cannot_have_is_told_by_the_container(fresh: Bench) -> None:
    wanted = config("true")
    wanted["linux"]["resources"] = {"cpu": {"cpus": "99999"}}
    fresh.spawner.get_ahead(wanted)
    assert waiting(fresh.spawner) == []
    with pytest.raises(SandboxError, match=r"cpuset\.cpus|99999"):
        fresh.spawner.create(fresh.plan(config=wanted))


@pytest.mark.parametrize("killed", [False, True])
def test_none_outlives_its_spawner(killed: bool) -> None:
    with Spawner.start() as spawner:
        spawner.get_ahead(config())
        (first,) = waiting(spawner)
        groups = groups_of(spawner.pid)
        assert groups
        if killed:
            os.kill(spawner.pid, signal.SIGKILL)
    wait_until_gone([first])
    if killed:
        with Spawner.start() as next_one:
            next_one.get_ready()
            waiting(next_one)
    assert not any(os.path.exists(group) for group in groups)
