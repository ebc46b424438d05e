"""Our netlink, judged by pyroute2 and by ip(8), which read from the kernel what we wrote."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from runtime.linux.netlink import Netlink, configure_interface
from runtime.sandbox import netns
from tests.support.networks import Place, own_host

pytestmark = pytest.mark.linux


@pytest.fixture
def place() -> Iterator[Place]:
    """A fresh namespace this test is in, and another one."""
    with own_host():
        place = Place(netns.new())
        yield place
        place.close()


def test_pyroute2_reads_the_bridge_that_was_made(place: Place) -> None:
    with Netlink() as netlink:
        netlink.add_bridge("br7", mac="02:42:ac:1e:00:01", mtu=1400, alias="for a test").commit()
        index = socket.if_nametoindex("br7")
        netlink.add_address(index, "172.30.0.1/16").add_route(index, "172.30.9.9", "10.0.0.0/8").commit()
    with IPRoute() as judge:
        (link,) = judge.link("get", ifname="br7")
        assert link.get("linkinfo").get("kind") == "bridge"
        assert link.get("state") == "up"
        assert (link.get("address"), link.get("mtu"), link.get("ifalias")) == (
            "02:42:ac:1e:00:01",
            1400,
            "for a test",
        )
        (address,) = judge.get_addr(index=index, family=socket.AF_INET)
        assert (address.get("address"), address["prefixlen"], address.get("broadcast")) == (
            "172.30.0.1",
            16,
            "172.30.255.255",
        )
        (route,) = judge.get_routes(dst="10.0.0.0/8")
        assert route.get("gateway") == "172.30.9.9"


def test_what_pyroute2_made_is_read_back(place: Place) -> None:
    with IPRoute() as judge:
        judge.link("add", ifname="made7", kind="bridge", address="02:00:00:00:00:07")
        (index,) = judge.link_lookup(ifname="made7")
        judge.link("set", index=index, state="up", mtu=1300)
        judge.addr("add", index=index, address="10.1.2.3", prefixlen=24)
        judge.route("add", dst="default", gateway="10.1.2.1")
        judge.route("add", dst="10.9.0.0/16", gateway="10.1.2.1", table=77)
    with Netlink() as netlink:
        link = netlink.link("made7")
        assert link is not None
        assert (link.index, link.kind, link.up, link.mtu, link.mac) == (
            index,
            "bridge",
            True,
            1300,
            "02:00:00:00:00:07",
        )
        assert [each.name for each in netlink.links()] == ["lo", "made7"]
        assert (index, "10.1.2.3/24") in netlink.addresses()
        routes = {(each.destination, each.gateway, each.table) for each in netlink.routes()}
        assert {
            ("default", "10.1.2.1", 254),
            ("10.9.0.0/16", "10.1.2.1", 77),
            ("10.1.2.0/24", "", 254),
        } <= routes
        assert netlink.link("nobody") is None


def test_a_cable_ends_in_another_namespace_under_its_final_name(place: Place) -> None:
    with Netlink() as netlink:
        netlink.add_bridge("br7").commit()
        master = socket.if_nametoindex("br7")
        netlink.add_veth(
            "cable7",
            "eth0",
            namespace=place.descriptor,
            mac="02:42:ac:1e:00:02",
            mtu=1280,
            master=master,
            alias="mine",
        )
        netlink.commit()
    place.do(lambda: configure_interface("eth0", "10.7.0.2/24", "10.7.0.1"))
    shown = json.loads(place.run("ip", "-j", "-d", "addr", "show", "dev", "eth0"))[0]
    assert (shown["address"], shown["mtu"], shown["linkinfo"]["info_kind"]) == (
        "02:42:ac:1e:00:02",
        1280,
        "veth",
    )
    assert shown["addr_info"][0]["local"] == "10.7.0.2"
    assert json.loads(place.run("ip", "-j", "route", "show", "default"))[0]["gateway"] == "10.7.0.1"
    with IPRoute() as judge:
        (link,) = judge.link("get", ifname="cable7")
        assert (link.get("master"), link.get("mtu"), link.get("ifalias")) == (master, 1280, "mine")


def test_a_port_is_isolated_and_a_link_renamed_and_deleted(place: Place) -> None:
    with Netlink() as netlink:
        netlink.add_bridge("br7").commit()
        netlink.add_veth("one7", "two7", master=socket.if_nametoindex("br7")).commit()
        index = socket.if_nametoindex("one7")
        netlink.set_port(index, isolated=True, hairpin=True).commit()
        with IPRoute() as judge:
            (link,) = judge.link("get", index=index)
            port = link.get("linkinfo").get("slave_data")
            assert (port.get("isolated"), port.get("mode")) == (1, 1)
        netlink.set_link(socket.if_nametoindex("two7"), name="three7", up=True).commit()
        assert netlink.link("three7") is not None
        netlink.delete_link("one7").commit()
        assert [each.name for each in netlink.links()] == ["lo", "br7"]


def test_a_refusal_names_the_request_and_the_kernels_reason(place: Place) -> None:
    with Netlink() as netlink:
        with pytest.raises(OSError, match="netlink: delete link nobody: No such device") as caught:
            netlink.delete_link("nobody").commit()
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(OSError, match="Nexthop has invalid gateway"):
            netlink.add_route(1, "10.0.0.1").commit()
        with pytest.raises(OSError, match="not an interface name"):
            netlink.add_bridge("a-name-that-is-too-long")
        netlink.add_bridge("br7").commit()  # and goes on working
        with pytest.raises(OSError, match="add bridge br7"):
            netlink.add_bridge("br7").add_bridge("br8").commit()
        assert netlink.link("br8") is not None


def test_a_namespace_made_here_has_its_loopback_up_and_lives_as_long_as_its_descriptor() -> None:
    descriptor = netns.new()
    try:
        assert netns.inside(descriptor, lambda: socket.create_server(("127.0.0.1", 0))).close() is None
        inode = os.fstat(descriptor).st_ino
        assert inode != os.stat("/proc/self/ns/net").st_ino
    finally:
        os.close(descriptor)


def test_an_error_in_a_namespace_comes_back() -> None:
    descriptor = netns.new()
    try:
        with pytest.raises(ZeroDivisionError):
            netns.inside(descriptor, lambda: 1 // 0)
    finally:
        os.close(descriptor)
