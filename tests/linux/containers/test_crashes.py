"""Kill -9 of whoever is in charge, at any moment, leaves nothing behind and no lie in the state (D-36)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import cgroups
from runtime.containers.spec import NetworkAttachment, PortBinding
from tests.support import REPOSITORY
from tests.support.containers import PATIENCE, World, alive, wait_gone

pytestmark = pytest.mark.linux

# A whole `pipe run` in a process of its own: one argument is the store, the rest is the command line.
RUN = "import sys; from pipeline.cli.main import run; sys.exit(run(['--root', sys.argv[1], *sys.argv[2:]]))"


def command(world: World, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(world.root), *words],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def shim_of(world: World, identifier: str) -> int:
    return int(world.containers.get(identifier).state.shim.split(".")[2])


def groups(identifier: str) -> list[str]:
    """The control groups of a container."""
    paths = cgroups.hierarchies().cgroup(f"pipe/{identifier}").directories
    return [path for path in paths if os.path.exists(path)]


def nothing_left(world: World, mark: str, seen: set[str]) -> None:
    """No container, directory, address, rule, cgroup or process of what was killed, once a sweep has been."""
    deadline = time.monotonic() + PATIENCE
    while True:
        world.containers.sweep()
        world.networks.sweep()
        left = [container.name for container in world.containers.list(everything=True)]
        left += os.listdir(world.root / "containers")
        left += [endpoint.container_name for endpoint in world.networks.endpoints()]
        left += [row["container"] for row in world.store.db.read("SELECT container FROM ports")]
        left += processes(mark)
        left += [path for identifier in seen for path in groups(identifier)]
        if not left:
            return
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def processes(mark: str) -> list[str]:
    """Processes whose command line holds `mark`, but not we."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", pid, "cmdline").read_bytes().decode("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if mark in words and int(pid) != os.getpid():
            found.append(f"{pid}: {words[:80]}")
    return found


def test_a_killed_shim_takes_its_container_along_and_the_state_says_so(world: World) -> None:
    container = world.up(
        "sleep", "1000", network_mode="bridge", ports=(PortBinding(container_port=80, host_ip="127.0.0.1"),)
    )
    os.kill(shim_of(world, container.id), signal.SIGKILL)
    wait_gone(container.state.pid)
    found = world.containers.get(container.id)
    assert (found.state.status, found.state.code) == ("exited", 137)
    assert "killed" in found.state.error
    assert container.id in world.containers.sweep()
    assert not world.networks.endpoints(container=container.id)
    assert not cgroups.processes(container.cgroup)
    assert world.containers.sweep() == []
    # It starts again as if nothing had been.
    world.containers.start(container.id)
    assert world.containers.get(container.id).running
    world.containers.remove(container.id, force=True)


def test_waiting_for_a_container_whose_shim_is_killed_ends(world: World) -> None:
    import threading

    container = world.up("sleep", "1000")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(world.ended(container.id).code))
    thread.start()
    os.kill(shim_of(world, container.id), signal.SIGKILL)
    thread.join(PATIENCE)
    assert codes == [137]
    world.containers.remove(container.id)


def test_a_container_outlives_the_command_that_started_it(world: World) -> None:
    process = command(world, "run", "--network", "none", "--name", "survivor", "busybox", "sleep", "1000")
    try:
        deadline = time.monotonic() + PATIENCE
        while (found := world.containers.find("survivor")) is None or not found.running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    container = world.containers.get("survivor")
    assert container.running
    assert world.exec("survivor", "echo", "still here").text == "still here\n"
    world.containers.remove("survivor", force=True)


def test_an_owner_bound_container_dies_with_its_owner(world: World) -> None:
    script = """
import os, sys
sys.path.insert(0, os.getcwd())
from runtime.sandbox.spawner import Spawner
spawner = Spawner.start()
from runtime.containers.containers import Containers
from runtime.containers.spec import ContainerSpec
from runtime.images.images import Images
from runtime.networks.networks import Networks
from runtime.store.store import Store
from runtime.volumes import Volumes
store = Store.open(sys.argv[1])
containers = Containers(store, Images(store), Networks(store), Volumes(store), spawner)
spec = ContainerSpec(image="busybox", command=("sleep", "1000"), network_mode="bridge", owner_bound=True, auto_remove=True)
container = containers.create(spec, start_follows=True)
held = containers.start(container.id)
print(containers.get(container.id).state.pid, container.id, flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(world.root)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        text, identifier = process.stdout.readline().decode().split()
        pid = int(text)
        assert alive(pid)
    finally:
        process.kill()
        process.communicate()
    wait_gone(pid)
    nothing_left(world, str(world.root), {identifier})


def killed_at_random(world: World, seed: int) -> set[str]:
    """`pipe run --rm` on a named network with a port and a volume, and one of its processes killed at some moment."""
    seen = set()
    chance = random.Random(seed)
    mark = f"sleep 10{seed:03}.5"
    process = command(
        world,
        "run",
        "--rm",
        "--network",
        "crashing",
        "-p",
        "127.0.0.1::80",
        "-v",
        "/data",
        "busybox",
        *mark.split(),
    )
    try:
        time.sleep(chance.uniform(0.0, 0.9))
        victims = [process.pid]
        if chance.random() < 0.5:
            for container in world.containers.list(everything=True):
                seen.add(container.id)
                if container.running:
                    victims = [int(container.state.shim.split(".")[2])]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # A command whose shim was killed says so and ends; one that was killed leaves the container to its shim.
        if victims != [process.pid]:
            process.wait(PATIENCE)
    finally:
        process.kill()
        process.communicate()
    time.sleep(chance.uniform(0.0, 0.1))
    for container in world.containers.list(everything=True):
        seen.add(container.id)
        if container.running:
            world.containers.remove(container.id, force=True, volumes=True)
    return seen


@pytest.fixture
def crashing(world: World) -> World:
    world.networks.create("crashing")
    assert NetworkAttachment(network="crashing")
    return world


def test_five_kills_leave_nothing(crashing: World) -> None:
    seen: set[str] = set()
    for seed in range(5):
        seen |= killed_at_random(crashing, seed)
    nothing_left(crashing, str(crashing.root), seen)
    assert not processes("sleep 10")
    crashing.networks.remove("crashing")
    assert [volume for volume in crashing.volumes.list() if volume.anonymous] == []


@pytest.mark.slow
def test_forty_kills_leave_nothing(crashing: World) -> None:
    seen: set[str] = set()
    for seed in range(100, 140):
        seen |= killed_at_random(crashing, seed)
        nothing_left(crashing, str(crashing.root), seen)
    crashing.networks.remove("crashing")
    assert [volume for volume in crashing.volumes.list() if volume.anonymous] == []
