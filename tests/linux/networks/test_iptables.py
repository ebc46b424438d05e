"""The rules on a host that has iptables and no nftables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.containers.spec import PortBinding
from runtime.errors import HostFault
from runtime.networks import Networks, nft
from runtime.networks.iptables import Iptables
from runtime.store.store import Store
from tests.support.networks import HOST_ADDRESS, OUTSIDE_ADDRESS, World

pytestmark = [
    pytest.mark.linux,
    pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed"),
]


@pytest.fixture
def networks(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Networks]:
    monkeypatch.setattr(nft, "available", lambda: False)
    world.host.run("iptables", "-P", "FORWARD", "DROP")
    with Store.open(str(tmp_path / "store")) as store:
        networks = Networks(store)
        yield networks
        networks.close()


def test_all_of_it_works_with_iptables_too(world: World, networks: Networks) -> None:
    assert isinstance(networks.firewall.backend, Iptables)
    networks.create("web")
    networks.create("inside", internal=True)
    web, friend, stranger, hidden = (
        world.container(name) for name in ("web", "friend", "stranger", "hidden")
    )
    endpoint = web.join(networks, "web")
    friend.join(networks, "web")
    stranger.join(networks, "bridge")
    hidden.join(networks, "inside")
    web.serve("web", 80)
    outside = world.outside.serve("hello")
    assert web.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
    assert not hidden.reaches(OUTSIDE_ADDRESS, outside)
    assert friend.fetch(endpoint.address, 80).startswith("web")
    assert not stranger.reaches(endpoint.address, 80)
    world.outside.run("ip", "route", "add", str(endpoint.network.subnet), "via", HOST_ADDRESS)
    assert not world.outside.reaches(endpoint.address, 80)
    port = networks.publish(web.id, endpoint, [PortBinding(container_port=80)])[0].host_port
    for place, address in (
        (world.outside, HOST_ADDRESS),
        (world.host, "127.0.0.1"),
        (friend, HOST_ADDRESS),
        (stranger, HOST_ADDRESS),
        (web, HOST_ADDRESS),
    ):
        assert place.fetch(address, port).startswith("web")
    networks.release(web.id)
    assert not world.outside.reaches(HOST_ADDRESS, port)


def test_a_flush_is_repaired_and_teardown_is_complete(world: World, networks: Networks) -> None:
    before = world.host.run("iptables-save")
    one = world.container("one")
    one.join(networks, "bridge")
    world.host.run("iptables", "-F")
    outside = world.outside.serve("hello")
    two = world.container("two")
    two.join(networks, "bridge")
    assert two.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
    networks.teardown()
    left = [line for line in world.host.run("iptables-save").splitlines() if "PIPE-" in line]
    assert left == []
    assert before.count("FORWARD DROP") == 1


def test_a_host_with_neither_is_told_what_to_install(
    world: World, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.networks.iptables._PATH", "/nonexistent")
    with pytest.raises(HostFault, match="neither nftables nor iptables") as caught:
        networks.create("web")
    assert caught.value.hint == "install the package nftables"
