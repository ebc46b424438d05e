"""Containers on networks: addresses, names, published ports, and nothing left of them (D-30, D-31)."""

from __future__ import annotations

import os
import socket

import pytest

from runtime.containers.spec import NetworkAttachment, PortBinding, RestartPolicy
from runtime.errors import Conflict
from tests.support.containers import PATIENCE, World

pytestmark = pytest.mark.linux

SERVE = "while true; do echo hello | nc -l -p 80 -w 5 >/dev/null; done"


def fetch(address: str, port: int) -> bytes:
    """What a container answers; it may still be starting to listen."""
    import time

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((address, port), timeout=PATIENCE) as connection:
                connection.settimeout(PATIENCE)
                if data := connection.recv(100):
                    return data
        except OSError:
            pass
        assert time.monotonic() < deadline, f"{address}:{port} does not answer"
        time.sleep(0.05)


def test_on_the_default_bridge_it_has_an_address_and_a_route(world: World) -> None:
    script = "ip -4 addr show eth0 | grep inet; ip route | grep default; cat /etc/hosts; cat /etc/hostname"
    ran = world.run("sh", "-c", script, network_mode="bridge", hostname="me")
    lines = ran.text.splitlines()
    address = lines[0].split()[1].partition("/")[0]
    assert lines[1].startswith(f"default via {world.networks.get('bridge').gateway_address}")
    assert f"{address}\tme" in lines
    assert lines[-1] == "me"
    assert not world.networks.endpoints()


def test_none_has_only_a_loopback_and_host_has_the_hosts(world: World) -> None:
    assert world.run("ls", "/sys/class/net").text.split() == ["lo"]
    ours = os.readlink("/proc/self/ns/net")
    assert world.run("readlink", "/proc/self/ns/net", network_mode="host").text.strip() == ours


def test_containers_of_a_network_find_each_other_by_name(world: World) -> None:
    world.networks.create("front")
    on = {"network_mode": "", "networks": (NetworkAttachment(network="front", aliases=("service",)),)}
    server = world.up("sh", "-c", SERVE, name="server", **on)
    client = {"network_mode": "", "networks": (NetworkAttachment(network="front"),)}
    ask = 'until x=$(echo | nc -w 10 $name 80) && test -n "$x"; do sleep 0.1; done; echo $x'
    script = f"for name in server service $1; do {ask}; done; cat /etc/resolv.conf"
    text = world.run("sh", "-c", script, "sh", server.short_id, **client).text
    assert text.splitlines()[:3] == ["hello"] * 3
    assert "nameserver 127.0.0.11" in text
    world.containers.remove(server.id, force=True)
    world.networks.remove("front")


def test_a_published_port_leads_to_the_container(world: World) -> None:
    container = world.up(
        "sh", "-c", SERVE, network_mode="bridge", ports=(PortBinding(container_port=80, host_ip="127.0.0.1"),)
    )
    (binding,) = world.networks.published(container.id)
    assert fetch("127.0.0.1", binding.host_port) == b"hello\n"
    with pytest.raises(Conflict, match=str(binding.host_port)):
        world.up("true", network_mode="bridge", ports=(binding,), name="second")
    assert not world.containers.get("second").running
    world.containers.remove("second")
    with pytest.raises(Conflict, match=str(binding.host_port)):
        world.up("true", network_mode="bridge", ports=(binding,), name="third", auto_remove=True)
    assert world.containers.find("third") is None
    world.containers.remove(container.id, force=True)
    assert world.networks.published(container.id) == ()


def test_a_container_can_share_anothers_network(world: World) -> None:
    first = world.up("sleep", "1000", network_mode="bridge", name="net-owner")
    script = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; cat /etc/hosts"
    text = world.run("sh", "-c", script, network_mode="container:net-owner").text
    (endpoint,) = world.networks.endpoints(container=first.id)
    assert text.splitlines()[0] == f"inet {endpoint.address}"
    assert endpoint.address in text.splitlines()[-1]
    world.containers.remove(first.id, force=True)


def test_a_restart_by_policy_keeps_the_address(world: World) -> None:
    script = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; test -e /again && exec sleep 1000; touch /again; exit 1"
    container = world.up("sh", "-c", script, network_mode="bridge", restart=RestartPolicy(name="on-failure"))
    lines: list[str] = []
    for line in world.containers.logs(container.id, follow=True):
        lines.append(line.data.decode())
        if len(lines) == 2:
            break
    assert lines[0] == lines[1]
    world.networks.sweep()
    assert len(world.networks.endpoints(container=container.id)) == 1
    world.containers.remove(container.id, force=True)
    assert not world.networks.endpoints(container=container.id)
