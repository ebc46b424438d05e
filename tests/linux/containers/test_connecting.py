"""Networks of a container that is there already: `pipe network connect` and `disconnect`."""

from __future__ import annotations

import pytest

from runtime.containers.connecting import Connecting
from runtime.containers.spec import NetworkAttachment
from runtime.errors import Conflict, NotFound
from tests.support.containers import World

pytestmark = pytest.mark.linux
IDLE = ("sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")


@pytest.fixture
def connecting(world: World) -> Connecting:
    return Connecting(world.store, world.networks, world.spawner)


def on(name: str) -> dict[str, object]:
    return {"network_mode": "", "networks": (NetworkAttachment(network=name),)}


def test_a_running_container_gets_an_interface_names_and_a_line_in_hosts(
    world: World, connecting: Connecting
) -> None:
    world.networks.create("back0")
    server = world.up(*IDLE, name="server0", **on("back0"))
    client = world.up(*IDLE, name="client0", network_mode="bridge", hostname="me")
    connecting.connect("client0", NetworkAttachment(network="back0", aliases=("caller",)))
    address = world.networks.endpoints(container=server.id)[0].address
    own = world.networks.endpoints(container=client.id)[1].address
    assert address in world.exec("client0", "nslookup", "server0").stdout.decode()
    assert own in world.exec("server0", "nslookup", "caller").stdout.decode()
    assert f"{own}\tme" in world.exec("client0", "cat", "/etc/hosts").text
    assert own in world.exec("client0", "ip", "addr", "show", "eth1").text
    with pytest.raises(Conflict, match="on network back0 already"):
        connecting.connect("client0", NetworkAttachment(network="back0"))


def test_what_was_connected_is_connected_again_at_the_next_start(
    world: World, connecting: Connecting
) -> None:
    for name in ("one1", "two1", "three1"):
        world.networks.create(name)
    container = world.up(*IDLE, name="c1", **on("one1"))
    connecting.connect("c1", NetworkAttachment(network="two1"))
    world.containers.stop("c1", 1)
    connecting.connect("c1", NetworkAttachment(network="three1"))
    connecting.disconnect("c1", "one1")
    world.containers.start("c1")
    found = [each.network.name for each in world.networks.endpoints(container=container.id)]
    assert found == ["two1", "three1"]


def test_a_running_container_loses_an_interface(world: World, connecting: Connecting) -> None:
    for name in ("one2", "two2"):
        world.networks.create(name)
    container = world.up(*IDLE, name="c2", **on("one2"))
    connecting.connect("c2", NetworkAttachment(network="two2"))
    first, second = world.networks.endpoints(container=container.id)
    connecting.disconnect("c2", "one2")
    hosts = world.exec("c2", "cat", "/etc/hosts").text
    assert (first.address in hosts, second.address in hosts) == (False, True)
    route = world.exec("c2", "ip", "route").text
    assert f"default via {second.network.gateway_address} dev eth1" in route
    connecting.disconnect("c2", "two2")
    assert world.exec("c2", "ls", "/sys/class/net").text.split() == ["lo"]
    with pytest.raises(NotFound, match="not on network one2"):
        connecting.disconnect("c2", "one2")


def test_one_without_a_network_of_its_own_cannot_be_connected(world: World, connecting: Connecting) -> None:
    world.networks.create("one3")
    world.create("true", name="c3", network_mode="host")
    with pytest.raises(Conflict, match="no network of its own"):
        connecting.connect("c3", NetworkAttachment(network="one3"))
