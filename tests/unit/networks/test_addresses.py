from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from runtime.errors import Conflict, InvalidInput, Unsupported
from runtime.networks.addresses import (
    POOLS,
    Range,
    candidates,
    check_mac,
    choose_address,
    choose_subnet,
    dotted,
    mac_of,
    number,
    parse_range,
)

ranges = some.builds(
    lambda base, prefix: Range(base >> (32 - prefix) << (32 - prefix), prefix),
    some.integers(0, 2**32 - 1),
    some.integers(1, 32),
)


def test_a_subnet_reads_as_it_is_written() -> None:
    assert str(parse_range("172.30.0.0/20")) == "172.30.0.0/20"
    assert parse_range("10.0.0.0/8").size == 1 << 24


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/0", "10.0/8", "x/8", "10.0.0.0/-1"]
)
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_range(text)


def test_host_bits_are_pointed_out() -> None:
    with pytest.raises(InvalidInput, match="host bits") as caught:
        parse_range("10.1.2.3/16")
    assert "10.1.0.0/16" in caught.value.hint


def test_ipv6_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="IPv6"):
        parse_range("fd00::/64")


@given(ranges, ranges)
def test_overlap_is_what_ipaddress_says(one: Range, other: Range) -> None:
    left, right = ipaddress.ip_network(str(one)), ipaddress.ip_network(str(other))
    assert one.overlaps(other) == left.overlaps(right)


def test_no_two_ranges_of_the_pools_overlap() -> None:
    everything = list(candidates(POOLS))
    assert len(everything) == 256
    assert not any(one.overlaps(other) for n, one in enumerate(everything) for other in everything[:n])


@given(some.lists(ranges, max_size=20))
def test_a_chosen_subnet_touches_none_that_is_taken(taken: list[Range]) -> None:
    try:
        chosen = choose_subnet(taken)
    except Conflict:
        assert all(any(each.overlaps(other) for other in taken) for each in candidates(POOLS))
    else:
        assert not any(chosen.overlaps(other) for other in taken)


def test_addresses_are_given_in_turn_and_come_round() -> None:
    subnet = parse_range("10.0.0.0/29")
    taken, after, given_out = {subnet.base + 1}, 0, []
    for _ in range(5):
        after = choose_address(subnet, subnet, taken, after)
        taken.add(after)
        given_out.append(dotted(after))
    assert given_out == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    taken.discard(number("10.0.0.3"))
    assert choose_address(subnet, subnet, taken, after) == number("10.0.0.3")
    taken.add(number("10.0.0.3"))
    with pytest.raises(Conflict, match="no free address left"):
        choose_address(subnet, subnet, taken, after)


def test_a_freed_address_is_not_given_away_at_once() -> None:
    subnet = parse_range("10.0.0.0/24")
    first = choose_address(subnet, subnet, {subnet.base + 1}, 0)
    assert choose_address(subnet, subnet, {subnet.base + 1}, first) == first + 1


def test_addresses_come_from_the_range_within_the_subnet() -> None:
    subnet, within = parse_range("10.0.0.0/16"), parse_range("10.0.5.0/30")
    found = {choose_address(within, subnet, set(), after) for after in range(within.base - 1, within.last)}
    assert found == {within.base, within.base + 1, within.base + 2, within.base + 3}


def test_a_hardware_address_tells_its_ipv4_address() -> None:
    assert mac_of(number("172.30.0.2")) == "02:42:ac:1e:00:02"
    assert check_mac("02-42-AC-1E-00-02") == "02:42:ac:1e:00:02"


@pytest.mark.parametrize(
    "mac", ["", "01:00:5e:00:00:01", "02:42:ac:1e:00", "0242ac1e0002", "02:42:ac:1e:00:xy"]
)
def test_what_is_no_unicast_hardware_address_is_refused(mac: str) -> None:
    with pytest.raises(InvalidInput):
        check_mac(mac)
