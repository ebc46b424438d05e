from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.errors import Conflict, InvalidInput, Unsupported
from runtime.networks import definition
from runtime.networks.addresses import POOLS, dotted, parse_range
from runtime.networks.values import Network

DRAFT = Network(id="0" * 64, name="web")
OTHER = replace(DRAFT, name="other", subnet=parse_range("10.1.0.0/16"))


def place(subnet: str = "", gateway: str = "", ip_range: str = "", draft: Network = DRAFT) -> Network:
    occupied = [parse_range("192.0.2.0/24")]
    return definition.place(draft, subnet, gateway, ip_range, others=[OTHER], occupied=occupied, pools=POOLS)


def test_without_wishes_the_first_free_range_and_its_first_address_are_taken() -> None:
    placed = place()
    assert (str(placed.subnet), placed.gateway_address, placed.automatic) == (
        "172.30.0.0/22",
        "172.30.0.1",
        True,
    )


def test_wishes_are_granted() -> None:
    placed = place("10.2.0.0/24", "10.2.0.254", "10.2.0.128/25")
    assert (dotted(placed.gateway), str(placed.ip_range), placed.automatic) == (
        "10.2.0.254",
        "10.2.0.128/25",
        False,
    )


@pytest.mark.parametrize(
    ("wishes", "error", "words"),
    [
        (("10.1.7.0/24",), Conflict, "overlaps 10.1.0.0/16 of network other"),
        (("192.0.0.0/16",), Conflict, "in use on this host"),
        (("10.2.0.0/31",), InvalidInput, "no room"),
        (("10.2.0.0/24", "10.3.0.1"), InvalidInput, "gateway 10.3.0.1"),
        (("10.2.0.0/24", "10.2.0.255"), InvalidInput, "gateway 10.2.0.255"),
        (("10.2.0.0/24", "", "10.3.0.0/25"), InvalidInput, "ip range 10.3.0.0/25"),
        (("fd00::/64",), Unsupported, "IPv6"),
    ],
)
def test_wishes_that_cannot_be_granted_are_named(
    wishes: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        place(*wishes)
    assert words in str(caught.value)


def test_an_auxiliary_address_must_be_one_of_the_network() -> None:
    draft = replace(DRAFT, reserved={"router": "10.9.0.1"})
    with pytest.raises(InvalidInput, match=r"auxiliary address 10\.9\.0\.1"):
        place("10.2.0.0/24", draft=draft)


def test_options_have_short_names_and_dockers() -> None:
    docker = {
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "0",
        "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
    }
    short = {"mtu": "1400", "icc": "false", "masquerade": "false", "host-binding": "127.0.0.1"}
    expected = replace(DRAFT, mtu=1400, icc=False, masquerade=False, host_ip="127.0.0.1")
    assert definition.with_options(DRAFT, docker) == definition.with_options(DRAFT, short) == expected
    assert definition.names_mtu(docker) and not definition.names_mtu({"icc": "true"})


@pytest.mark.parametrize(
    "option", [{"mtu": "12"}, {"icc": "perhaps"}, {"host-binding": "here"}, {"mtuu": "1400"}]
)
def test_options_that_mean_nothing_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        definition.with_options(DRAFT, option)


@pytest.mark.parametrize("name", ["", "-web", "we b", "wéb", "a/b"])
def test_names_are_as_dockers(name: str) -> None:
    with pytest.raises(InvalidInput):
        definition.check_name(name)
