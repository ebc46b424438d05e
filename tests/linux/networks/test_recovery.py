"""Other programs change the packet filter, processes are killed, two want the same thing: what then."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.containers.spec import NetworkAttachment, PortBinding
from runtime.errors import Conflict
from runtime.networks import Networks
from runtime.networks.addresses import parse_range
from runtime.networks.firewall import generation
from runtime.store.store import Store
from tests.support.networks import HOST_ADDRESS, OUTSIDE_ADDRESS, World

pytestmark = pytest.mark.linux
REPOSITORY = Path(__file__).resolve().parents[3]


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process of ours, in the namespace the test is in."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output


@pytest.mark.parametrize(
    "damage",
    [
        ["nft", "flush", "ruleset"],
        ["nft", "flush", "table", "ip", "TABLE"],
        ["ip", "link", "del", "TABLE"],
    ],
    ids=["flush ruleset", "flush table", "delete bridge"],
)
def test_what_others_removed_is_back_at_the_next_start(
    world: World, networks: Networks, damage: list[str]
) -> None:
    old = world.container("old")
    endpoint = old.join(networks, "bridge")
    old.serve("old", 80)
    port = networks.publish(old.id, endpoint, [PortBinding(container_port=80)])[0].host_port
    world.host.run(*[word.replace("TABLE", f"pipe-{networks.key}") for word in damage])
    new = world.container("new")
    new.join(networks, "bridge")
    outside = world.outside.serve("hello")
    assert new.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
    if damage[0] == "nft":
        assert world.outside.fetch(HOST_ADDRESS, port).startswith("old")


def test_without_changes_a_start_leaves_the_packet_filter_alone(world: World, networks: Networks) -> None:
    world.container("one").join(networks, "bridge")
    before = generation()
    world.container("two").join(networks, "bridge")
    assert generation() == before


def test_the_endpoint_of_a_killed_container_is_given_back(world: World, networks: Networks) -> None:
    container, other = world.container("one"), world.container("two")
    endpoint = container.join(networks, "bridge")
    other.join(networks, "bridge")
    port = networks.publish(container.id, endpoint, [PortBinding(container_port=80)])[0]
    networks.sweep()
    assert len(networks.endpoints()) == 2
    container.kill()
    networks.sweep()
    assert [each.container_name for each in networks.endpoints()] == ["two"]
    assert str(port.host_port) not in world.host.run("nft", "list", "ruleset")


KILLED = """
import os, signal, sys
from runtime.containers.spec import NetworkAttachment
from runtime.networks import Networks, bridges
from runtime.store.store import Store
root, where, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store.open(root) as store:
    networks = Networks(store)
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "reserved":
        bridges.plug = die
    if where == "plugged":
        networks.records.own = die
    if where == "making the bridge":
        bridges.make_bridge = die
    if where == "rules":
        networks.firewall.include = die
    if where == "removing":
        networks.create("doomed")
        networks.records.remove = die
        networks.remove("doomed")
    networks.create("fresh")
    networks.attach(networks.connect("c" * 64, "victim", NetworkAttachment(network="fresh")), pid)
"""


@pytest.mark.parametrize("where", ["reserved", "plugged", "making the bridge", "rules", "removing"])
def test_a_kill_at_any_step_leaves_nothing_that_disturbs(
    world: World, networks: Networks, tmp_path: Path, where: str
) -> None:
    victim = world.container("victim")
    process = python(KILLED, str(tmp_path / "store"), where, str(victim.pid))
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    networks.sweep()
    assert networks.endpoints() == ()
    name = "doomed" if where == "removing" else "fresh"
    survivor = world.container("survivor")
    survivor.join(networks, name)
    outside = world.outside.serve("hello")
    assert survivor.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
    networks.release(survivor.id)
    victim.kill()
    assert networks.prune() == (name,)
    assert f"pipe-{networks.key}-" not in world.host.run("ip", "-br", "link")


CREATE = """
import sys
from runtime.networks import Networks
from runtime.store.store import Store
with Store.open(sys.argv[1]) as store:
    networks = Networks(store)
    sys.stdin.readline()
    for n in range(8):
        print(networks.create(f"{sys.argv[2]}{n}").subnet)
    print(networks.ensure_default().subnet)
"""


@pytest.mark.parametrize("stores", [("same", "same"), ("one", "two")], ids=["one store", "two stores"])
def test_two_processes_never_choose_the_same_range(
    world: World, tmp_path: Path, stores: tuple[str, str]
) -> None:
    processes = [python(CREATE, str(tmp_path / store), f"n{n}-") for n, store in enumerate(stores)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    subnets = [parse_range(line) for process in processes for line in finish(process).split()]
    if stores[0] == stores[1]:
        assert subnets[8] == subnets[17]  # the one default network
        subnets.pop()
    assert not any(one.overlaps(other) for n, one in enumerate(subnets) for other in subnets[:n])


CROWD = """
import os, sys
from runtime.containers.spec import NetworkAttachment, PortBinding
from runtime.networks import Networks
from runtime.store.store import Store
from tests.support.networks import Container
with Store.open(sys.argv[1]) as store:
    networks = Networks(store)
    sys.stdin.readline()
    for n in range(4):
        networks.sweep()
        container = Container(f"{sys.argv[2]}-{n}")
        endpoint = networks.connect(container.id, container.name, NetworkAttachment(network="bridge"))
        networks.attach(endpoint, container.pid)
        networks.publish(container.id, endpoint, [PortBinding(container_port=80)])
        print(endpoint.address)
        container.close()
        if n % 2:
            networks.release(container.id)
    networks.close()
"""


def test_a_crowd_starting_at_once_gets_addresses_of_its_own_and_leaves_nothing(
    world: World, networks: Networks, tmp_path: Path
) -> None:
    processes = [python(CROWD, str(tmp_path / "store"), f"c{n}") for n in range(5)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    addresses = [line for process in processes for line in finish(process).split()]
    assert len(set(addresses)) == 20
    networks.sweep()
    assert networks.endpoints() == ()
    assert " : 172.30." not in world.host.run("nft", "list", "ruleset")


def test_two_stores_work_side_by_side(world: World, networks: Networks, tmp_path: Path) -> None:
    ours = world.container("ours")
    ours.join(networks, "bridge")
    with Store.open(str(tmp_path / "second")) as store:
        second = Networks(store)
        theirs = world.container("theirs")
        endpoint = theirs.join(second, "bridge")
        theirs.serve("theirs", 80)
        port = second.publish(theirs.id, endpoint, [PortBinding(container_port=80)])[0].host_port
        outside = world.outside.serve("hello")
        for container in (ours, theirs):
            assert container.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
        assert not ours.reaches(endpoint.address, 80)
        assert ours.fetch(HOST_ADDRESS, port).startswith("theirs")
        second.teardown()
        assert ours.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"


def test_used_up_pools_are_said_and_a_removed_network_frees_its_range(world: World, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store")) as store:
        networks = Networks(store, pools=[(parse_range("10.9.0.0/24"), 25)])
        networks.create("one")
        networks.create("two")
        with pytest.raises(Conflict, match="all address pools are in use") as caught:
            networks.create("three")
        assert "pipe network prune" in caught.value.hint
        networks.remove("one")
        assert str(networks.create("three").subnet) == "10.9.0.0/25"


def test_used_up_addresses_are_said(world: World, networks: Networks) -> None:
    networks.create("tiny", subnet="10.9.0.0/30")
    networks.connect("a" * 64, "one", NetworkAttachment(network="tiny"))
    with pytest.raises(Conflict, match=r"no free address left in 10\.9\.0\.0/30"):
        networks.connect("b" * 64, "two", NetworkAttachment(network="tiny"))


def test_a_connection_that_is_made_twice_is_one(world: World, networks: Networks) -> None:
    networks.create("web")
    first = networks.connect("a" * 64, "one", NetworkAttachment(network="web"))
    assert networks.connect("a" * 64, "one", NetworkAttachment(network="web")).address == first.address
    assert len(networks.endpoints()) == 1


POOL = """
import sys
from runtime.networks import Networks
from runtime.store.store import Store
with Store.open(sys.argv[1]) as store, Networks(store).pool() as pool:
    with pool.lend() as namespace:
        print(namespace.path, flush=True)
        sys.stdin.readline()
"""


def test_a_killed_builders_namespaces_are_gone(world: World, networks: Networks, tmp_path: Path) -> None:
    process = python(POOL, str(tmp_path / "store"))
    assert process.stdout is not None
    path = process.stdout.readline().strip()
    port = world.outside.serve("hello")
    done = subprocess.run(
        ["nsenter", f"--net={path}", "busybox", "nc", "-w", "20", OUTSIDE_ADDRESS, str(port)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"hello to {HOST_ADDRESS}"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    networks.sweep()
    assert networks.endpoints() == ()
    # The kernel takes a namespace down in the background, its cables with it.
    world.until(lambda: f"pv{networks.key}" not in world.host.run("ip", "-br", "link"))


def test_the_pool_lends_a_namespace_to_one_at_a_time(world: World, networks: Networks) -> None:
    with networks.pool() as pool:
        with pool.lend() as first, pool.lend() as second:
            assert first.address != second.address
        with pool.lend() as again:
            assert again.address in (first.address, second.address)
        with pool.lend(spoiled=True) as spoiled:
            pass
        assert spoiled.address not in [each.address for each in networks.endpoints()]
    assert networks.endpoints() == ()


def test_what_a_deleted_store_left_is_taken_away_unless_it_is_in_use(
    world: World, networks: Networks, tmp_path: Path
) -> None:
    def leave(name: str) -> Networks:
        with Store.open(str(tmp_path / name)) as store:
            left = Networks(store)
            left.create("web")
            left.ensure_default()
            return left

    idle, used = leave("idle"), leave("used")
    with Store.open(str(tmp_path / "used")) as store:
        world.container("one").join(Networks(store), "web")
    for name in ("idle", "used"):
        shutil.rmtree(tmp_path / name)
    networks.create("new")
    links = world.host.run("ip", "-br", "link")
    rules = world.host.run("nft", "list", "tables")
    assert f"pipe-{idle.key}" not in links + rules
    assert f"pipe-{used.key}-1" in links
    assert f"pipe-{used.key}" in rules


def test_a_network_gives_way_to_a_route_that_came_while_it_was_down(world: World, networks: Networks) -> None:
    before = networks.ensure_default()
    fixed = networks.create("fixed", subnet="10.77.0.0/24")
    for network in (before, fixed):
        world.host.run("ip", "link", "del", network.device)
    world.host.run("ip", "route", "add", "172.30.0.0/15", "via", OUTSIDE_ADDRESS)
    world.host.run("ip", "route", "add", "10.77.0.0/16", "via", OUTSIDE_ADDRESS)
    container = world.container("one")
    endpoint = container.join(networks, "bridge")
    assert str(endpoint.network.subnet) == "10.201.0.0/22"
    outside = world.outside.serve("hello")
    assert container.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
    assert "172.30." not in world.host.run("nft", "list", "ruleset")
    with pytest.raises(Conflict, match=r"range 10\.77\.0\.0/24 of network fixed is in use"):
        container.join(networks, "fixed")


UNPRIVILEGED = """
import ctypes, os, sys
from runtime.errors import PipeError
from runtime.networks import Networks
from runtime.store.store import Store
with Store.open(sys.argv[1]) as store:
    networks = Networks(store)
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
    try:
        networks.create("web")
    except PipeError as error:
        print(type(error).__name__, error.message, error.hint, sep="|")
    print(networks.records.all())
"""


def test_without_root_it_is_said_and_nothing_is_kept(world: World, tmp_path: Path) -> None:
    root = tmp_path / "store"
    Store.open(str(root)).close()
    for path in (tmp_path, root, *root.glob("pipe.db*")):
        os.chmod(path, 0o777 if path.is_dir() else 0o666)
    said, rows = finish(python(UNPRIVILEGED, str(root))).splitlines()
    assert "run as root" in said
    assert rows == "[]"
