from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from runtime.containers.spec import NetworkAttachment
from runtime.errors import Conflict, InvalidInput
from runtime.linux.netlink import Netlink
from runtime.networks import Networks
from tests.support.networks import HOST_ADDRESS, OUTSIDE_ADDRESS, World

pytestmark = pytest.mark.linux


def test_containers_of_a_network_reach_each_other_but_not_those_of_another(
    world: World, networks: Networks
) -> None:
    networks.create("front")
    networks.create("back")
    one, two, three = (world.container(name) for name in ("one", "two", "three"))
    one.join(networks, "front")
    second, third = two.join(networks, "front"), three.join(networks, "back")
    two.serve("two", 80)
    three.serve("three", 80)
    assert one.fetch(second.address, 80).startswith("two to ")
    assert world.host.fetch(third.address, 80).startswith("three to ")
    assert not one.reaches(third.address, 80)


def test_a_container_on_two_networks_reaches_both_and_has_one_default_route(
    world: World, networks: Networks
) -> None:
    networks.create("front")
    networks.create("back")
    middle, left, right = (world.container(name) for name in ("middle", "left", "right"))
    first = middle.join(networks, "front")
    middle.join(networks, "back")
    ends = left.join(networks, "front"), right.join(networks, "back")
    left.serve("left", 80)
    right.serve("right", 80)
    assert [middle.fetch(end.address, 80).split()[0] for end in ends] == ["left", "right"]
    assert middle.run("ip", "route", "show", "default").split()[2] == first.gateway


def test_traffic_to_the_outside_carries_the_hosts_address(world: World, networks: Networks) -> None:
    port = world.outside.serve("hello")
    container = world.container("one")
    networks.ensure_default()
    container.join(networks, "bridge")
    assert container.fetch(OUTSIDE_ADDRESS, port) == f"hello to {HOST_ADDRESS}"


def test_egress_works_where_another_engine_drops_what_is_forwarded(world: World, networks: Networks) -> None:
    theirs = world.other_engine()
    port = world.outside.serve("hello")
    container = world.container("one")
    container.join(networks, "bridge")
    assert container.fetch(OUTSIDE_ADDRESS, port) == f"hello to {HOST_ADDRESS}"
    assert theirs.fetch(OUTSIDE_ADDRESS, port) == f"hello to {HOST_ADDRESS}"


def test_another_engine_may_come_later(world: World, networks: Networks) -> None:
    port = world.outside.serve("hello")
    world.container("early").join(networks, "bridge")
    world.other_engine()
    late = world.container("late")
    late.join(networks, "bridge")
    assert late.fetch(OUTSIDE_ADDRESS, port) == f"hello to {HOST_ADDRESS}"


def test_another_engines_containers_and_ours_stay_apart(world: World, networks: Networks) -> None:
    theirs = world.other_engine()
    theirs.serve("theirs", 80)
    ours = world.container("ours")
    endpoint = ours.join(networks, "bridge")
    ours.serve("ours", 80)
    assert world.host.fetch("172.17.0.2", 80).startswith("theirs")
    assert world.host.fetch(endpoint.address, 80).startswith("ours")
    assert not ours.reaches("172.17.0.2", 80)
    assert not theirs.reaches(endpoint.address, 80)


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="iptables-nft is not installed")
def test_iptables_can_still_read_the_table_we_added_to(world: World, networks: Networks) -> None:
    world.host.run("iptables-nft", "-P", "FORWARD", "DROP")
    world.container("ours").join(networks, "bridge")
    listed = world.host.run("iptables-nft", "-S", "FORWARD")
    assert f"-A FORWARD -i pipe-{networks.key}+ -j ACCEPT" in listed


def test_the_administrators_own_rules_in_docker_user_go_first(world: World, networks: Networks) -> None:
    world.other_engine()
    world.host.run("nft", f"add rule ip filter DOCKER-USER ip daddr {OUTSIDE_ADDRESS} drop")
    world.host.run("nft", "add rule ip filter DOCKER-USER return")
    port = world.outside.serve("hello")
    container = world.container("one")
    container.join(networks, "bridge")
    assert not container.reaches(OUTSIDE_ADDRESS, port)
    lines = [
        line.split("counter")[0].strip()
        for line in world.host.run("nft", "list chain ip filter DOCKER-USER").splitlines()[2:-2]
    ]
    device = f"pipe-{networks.key}*"
    assert lines == [
        f"ip daddr {OUTSIDE_ADDRESS} drop",
        f'iifname "{device}"',
        f'oifname "{device}"',
        "return",
    ]


def test_nobody_outside_gets_to_an_unpublished_port(world: World, networks: Networks) -> None:
    container = world.container("one")
    endpoint = container.join(networks, "bridge")
    container.serve("one", 80)
    world.outside.run("ip", "route", "add", str(endpoint.network.subnet), "via", HOST_ADDRESS)
    assert world.host.fetch(endpoint.address, 80).startswith("one")
    assert not world.outside.reaches(endpoint.address, 80)


def test_egress_works_where_the_hosts_uplink_is_a_bridge(world: World, networks: Networks) -> None:
    with Netlink() as netlink:
        netlink.add_bridge("br0").commit()
        bridge, uplink = netlink.link("br0"), netlink.link("eth0")
        assert bridge and uplink
        netlink.set_link(uplink.index, master=bridge.index).commit()
        world.host.run("ip", "addr", "flush", "dev", "eth0")
        netlink.add_address(bridge.index, f"{HOST_ADDRESS}/24").add_route(
            bridge.index, OUTSIDE_ADDRESS
        ).commit()
    world.other_engine()
    container = world.container("one")
    container.join(networks, "bridge")
    port = world.outside.serve("hello")
    assert container.fetch(OUTSIDE_ADDRESS, port) == f"hello to {HOST_ADDRESS}"
    assert not container.reaches("172.17.0.2", 80)


def test_an_internal_network_leads_nowhere(world: World, networks: Networks) -> None:
    networks.create("inside", internal=True)
    one, two = world.container("one"), world.container("two")
    first, second = one.join(networks, "inside"), two.join(networks, "inside")
    two.serve("two", 80)
    port = world.outside.serve("hello")
    assert one.fetch(second.address, 80).startswith("two")
    assert first.gateway == ""
    assert not one.reaches(OUTSIDE_ADDRESS, port)
    one.run("ip", "route", "add", "default", "via", first.network.gateway_address)
    assert not one.reaches(OUTSIDE_ADDRESS, port)  # not even for one who knows the way


def test_without_icc_containers_of_a_network_do_not_see_each_other(world: World, networks: Networks) -> None:
    networks.create("quiet", options={"icc": "false"})
    one, two = world.container("one"), world.container("two")
    first, second = one.join(networks, "quiet"), two.join(networks, "quiet")
    two.serve("two", 80)
    port = world.outside.serve("hello")
    assert one.fetch(OUTSIDE_ADDRESS, port).startswith("hello")
    assert not one.reaches(second.address, 80)
    one.run("ip", "route", "add", f"{second.address}/32", "via", first.gateway)
    assert not one.reaches(second.address, 80)  # nor by way of the host


def test_without_masquerade_the_containers_address_is_seen(world: World, networks: Networks) -> None:
    network = networks.create("routed", options={"masquerade": "false"})
    container = world.container("one")
    endpoint = container.join(networks, "routed")
    world.outside.run("ip", "route", "add", str(network.subnet), "via", HOST_ADDRESS)
    port = world.outside.serve("hello")
    assert container.fetch(OUTSIDE_ADDRESS, port) == f"hello to {endpoint.address}"


def test_a_new_network_keeps_clear_of_the_hosts_routes(world: World, networks: Networks) -> None:
    world.host.run("ip", "route", "add", "172.30.0.0/16", "via", OUTSIDE_ADDRESS)
    assert str(networks.create("one").subnet) == "172.31.0.0/22"
    with pytest.raises(Conflict, match="in use on this host"):
        networks.create("two", subnet="172.30.5.0/24")


def test_the_mtu_is_the_uplinks(world: World, networks: Networks) -> None:
    world.host.run("ip", "link", "set", "eth0", "mtu", "1420")
    container = world.container("one")
    networks.create("narrow")
    container.join(networks, "narrow")
    assert "mtu 1420" in container.run("ip", "link", "show", "eth0")


def test_address_and_hardware_address_can_be_chosen(world: World, networks: Networks) -> None:
    networks.create("chosen", subnet="10.77.0.0/24", gateway="10.77.0.254")
    container = world.container("one")
    container.join(networks, "chosen", ipv4="10.77.0.9", mac="02:00:00:00:00:09")
    shown = container.run("ip", "addr", "show", "eth0")
    assert "inet 10.77.0.9/24 brd 10.77.0.255" in shown
    assert "link/ether 02:00:00:00:00:09" in shown
    with pytest.raises(Conflict, match=r"10\.77\.0\.9 is taken by container one"):
        world.container("two").join(networks, "chosen", ipv4="10.77.0.9")
    with pytest.raises(InvalidInput, match=r"10\.78\.0\.1 is not one of network chosen"):
        world.container("three").join(networks, "chosen", ipv4="10.78.0.1")


def test_a_running_container_is_connected_and_disconnected(world: World, networks: Networks) -> None:
    networks.create("front")
    networks.create("back")
    one, two = world.container("one"), world.container("two")
    one.join(networks, "front")
    first = two.join(networks, "back")
    two.serve("two", 80)
    endpoint = networks.connect(one.id, "one", NetworkAttachment(network="back"))
    networks.attach_running(endpoint, one.pid)
    assert one.fetch(first.address, 80).startswith("two")
    networks.disconnect(one.id, "front", one.pid)
    port = world.outside.serve("hello")
    assert one.fetch(OUTSIDE_ADDRESS, port) == f"hello to {HOST_ADDRESS}"  # the default route moved over
    assert "eth0" not in one.run("ip", "-br", "link")


def test_a_removed_network_leaves_nothing(world: World, networks: Networks) -> None:
    network = networks.create("short")
    container = world.container("one")
    container.join(networks, "short")
    with pytest.raises(Conflict, match="in use by one"):
        networks.remove("short")
    networks.release(container.id)
    networks.remove("short")
    assert network.device not in world.host.run("ip", "-br", "link")
    assert str(network.subnet.base) not in world.host.run("nft", "list", "ruleset")
    assert [each.name for each in networks.list()] == ["host", "none"]


def test_teardown_leaves_the_host_as_it_was(world: World, networks: Networks) -> None:
    world.other_engine()
    before = world.host.run("nft", "list", "ruleset"), world.host.run("ip", "-br", "link")
    container = world.container("one")
    container.join(networks, "bridge")
    networks.create("more")
    networks.release(container.id)
    networks.teardown()
    container.kill()
    rules = world.host.run("nft", "list", "ruleset")
    assert [line for line in rules.splitlines() if "pipe-" in line] == []
    assert world.host.run("ip", "-br", "link").count("pipe-") == 0
    assert rules.count("chain") == before[0].count("chain")


def test_the_kernels_own_tools_agree_with_what_was_made(world: World, networks: Networks) -> None:
    network = networks.create("seen")
    container = world.container("one")
    endpoint = container.join(networks, "seen")
    shown = subprocess.run(
        ["ip", "-j", "-d", "addr", "show", "dev", network.device], capture_output=True, text=True, check=True
    )
    bridge = json.loads(shown.stdout)[0]
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    assert bridge["addr_info"][0]["local"] == network.gateway_address
    assert bridge["ifalias"] == f"pipe network {network.id[:12]} of {networks.root}"
    inside = json.loads(container.run("ip", "-j", "addr", "show", "dev", "eth0"))[0]
    assert inside["address"] == endpoint.mac
    assert [each["local"] for each in inside["addr_info"]] == [endpoint.address]  # and nothing by IPv6
