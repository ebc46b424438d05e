from __future__ import annotations

import socket

import pytest

from runtime.containers.spec import PortBinding
from runtime.errors import Conflict, InvalidInput, Unsupported
from runtime.networks import Endpoint, Networks
from tests.support.networks import HOST_ADDRESS, OUTSIDE_ADDRESS, PATIENCE, Container, World

pytestmark = pytest.mark.linux


@pytest.fixture
def web(world: World, networks: Networks) -> tuple[Container, Endpoint]:
    """A container that serves on port 80, on a network of its own."""
    networks.create("web")
    container = world.container("web")
    endpoint = container.join(networks, "web")
    container.serve("web", 80)
    return container, endpoint


def publish(networks: Networks, web: tuple[Container, Endpoint], **binding: object) -> PortBinding:
    container, endpoint = web
    wanted = PortBinding(container_port=80, **binding)  # type: ignore[arg-type]
    return networks.publish(container.id, endpoint, [wanted])[0]


def test_a_published_port_is_reached_from_everywhere(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    port = publish(networks, web).host_port
    assert port >= 32768
    neighbour = world.container("neighbour")
    neighbour.join(networks, "web")
    networks.create("other")
    stranger = world.container("stranger")
    stranger.join(networks, "other")
    container = web[0]
    assert (
        world.outside.fetch(HOST_ADDRESS, port) == f"web to {OUTSIDE_ADDRESS}"
    )  # the true address of the client
    assert world.host.fetch("127.0.0.1", port).startswith("web")
    assert world.host.fetch(HOST_ADDRESS, port).startswith("web")
    assert container.fetch(HOST_ADDRESS, port).startswith("web")  # hairpin
    assert container.fetch(web[1].gateway, port).startswith("web")
    assert neighbour.fetch(HOST_ADDRESS, port).startswith("web")
    assert stranger.fetch(HOST_ADDRESS, port).startswith("web")


def test_publishing_works_where_another_engine_drops_what_is_forwarded(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    theirs = world.other_engine()
    late = world.container("late")  # whose start repairs the rules for all
    late.join(networks, "web")
    port = publish(networks, web).host_port
    assert world.outside.fetch(HOST_ADDRESS, port).startswith("web")
    assert theirs.fetch(HOST_ADDRESS, port).startswith("web")


def test_one_published_on_localhost_is_not_reached_from_outside(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    port = publish(networks, web, host_ip="127.0.0.1").host_port
    assert world.host.fetch("127.0.0.1", port).startswith("web")
    assert not world.outside.reaches(HOST_ADDRESS, port)
    # A neighbour can put 127.0.0.1 on the wire: let the outside do so.
    outside = world.outside
    outside.do(lambda: _write("/proc/sys/net/ipv4/conf/all/route_localnet", "1"))
    outside.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    outside.run("ip", "route", "add", "127.0.0.1/32", "via", HOST_ADDRESS, "src", OUTSIDE_ADDRESS)
    assert not outside.reaches("127.0.0.1", port)


def test_one_published_on_an_address_is_reached_there_only(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    world.host.run("ip", "addr", "add", "198.51.100.77/24", "dev", "eth0")
    port = publish(networks, web, host_ip="198.51.100.77").host_port
    assert world.outside.fetch("198.51.100.77", port).startswith("web")
    assert not world.outside.reaches(HOST_ADDRESS, port)


def test_a_network_may_say_where_its_ports_are_published(world: World, networks: Networks) -> None:
    networks.create("private", options={"host-binding": "127.0.0.1"})
    container = world.container("one")
    endpoint = container.join(networks, "private")
    container.serve("one", 80)
    (port,) = networks.publish(container.id, endpoint, [PortBinding(container_port=80)])
    assert port.host_ip == "127.0.0.1"
    assert world.host.fetch("127.0.0.1", port.host_port).startswith("one")
    assert not world.outside.reaches(HOST_ADDRESS, port.host_port)


def test_containers_do_not_reach_what_listens_on_the_hosts_localhost(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    port = world.host.serve("private", address="127.0.0.1")
    container = web[0]
    container.do(lambda: _write("/proc/sys/net/ipv4/conf/all/route_localnet", "1"))
    container.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    container.run("ip", "route", "add", "127.0.0.1/32", "via", web[1].gateway, "src", web[1].address)
    assert world.host.fetch("127.0.0.1", port).startswith("private")
    assert not container.reaches("127.0.0.1", port)


def test_udp_is_published_too(world: World, networks: Networks, web: tuple[Container, Endpoint]) -> None:
    container, endpoint = web
    container.echo(53)
    wanted = PortBinding(container_port=53, protocol="udp")
    (port,) = networks.publish(container.id, endpoint, [wanted])
    answer = f"{OUTSIDE_ADDRESS}:question".encode()
    assert world.outside.send(HOST_ADDRESS, port.host_port, b"question") == answer
    assert world.host.send("127.0.0.1", port.host_port, b"question").endswith(b":question")


def test_a_udp_client_that_never_pauses_finds_the_ports_next_container(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    first, endpoint = web
    first.echo(53, word="first ")
    port = networks.publish(first.id, endpoint, [PortBinding(container_port=53, protocol="udp")])[0].host_port
    with world.outside.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.connect((HOST_ADDRESS, port))
        client.settimeout(PATIENCE)
        client.send(b"one")
        assert client.recv(100) == f"first {OUTSIDE_ADDRESS}:one".encode()
        networks.release(first.id)
        second = world.container("second")
        heir = second.join(networks, "web")
        second.echo(53, word="second ")
        networks.publish(second.id, heir, [PortBinding(container_port=53, protocol="udp", host_port=port)])
        client.send(b"two")  # from the same port: the same flow to the kernel
        assert client.recv(100) == f"second {OUTSIDE_ADDRESS}:two".encode()
        assert heir.address != endpoint.address


def test_a_taken_port_is_named(world: World, networks: Networks, web: tuple[Container, Endpoint]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Conflict, match=rf"port 0\.0\.0\.0:{port}/tcp is already in use"):
            publish(networks, web, host_port=port)
    assert publish(networks, web, host_port=port).host_port == port
    with pytest.raises(Conflict, match=f"{port}/tcp is already published by another container"):
        publish(networks, web, host_port=port, host_ip="127.0.0.1")


def test_nobody_else_gets_a_published_port(networks: Networks, web: tuple[Container, Endpoint]) -> None:
    port = publish(networks, web).host_port
    assert len(networks.held(web[0].id)) == 1
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("0.0.0.0", port))


def test_all_ports_are_published_or_none(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    container, endpoint = web
    with socket.create_server(("0.0.0.0", 0)) as server:
        taken = server.getsockname()[1]
        wanted = [PortBinding(container_port=80), PortBinding(container_port=81, host_port=taken)]
        with pytest.raises(Conflict):
            networks.publish(container.id, endpoint, wanted)
    assert networks.published(container.id) == ()
    assert networks.held(container.id) == ()


def test_a_released_port_is_free_again(
    world: World, networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    port = publish(networks, web).host_port
    networks.release(web[0].id)
    networks.release(web[0].id)
    assert not world.outside.reaches(HOST_ADDRESS, port)
    with socket.create_server(("0.0.0.0", port)):
        pass


def test_what_cannot_be_published_is_said_clearly(
    networks: Networks, web: tuple[Container, Endpoint]
) -> None:
    with pytest.raises(Unsupported, match="sctp"):
        publish(networks, web, protocol="sctp")
    with pytest.raises(Unsupported, match="IPv6 address '::1'"):
        publish(networks, web, host_ip="::1")
    with pytest.raises(InvalidInput, match=r"203\.0\.113\.9 is not an address of this host"):
        publish(networks, web, host_ip="203.0.113.9")
    with pytest.raises(InvalidInput, match="port 70000"):
        publish(networks, web, host_port=70000)


def test_ports_of_a_container_on_an_internal_network_cannot_be_published(
    world: World, networks: Networks
) -> None:
    networks.create("inside", internal=True)
    container = world.container("one")
    endpoint = container.join(networks, "inside")
    with pytest.raises(InvalidInput, match="internal network inside"):
        networks.publish(container.id, endpoint, [PortBinding(container_port=80)])


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
