from __future__ import annotations

import pytest

from runtime.errors import InvalidInput
from runtime.networks.names import hosts, nameservers, needs_resolver, resolv_conf

HOST = """# made by something
search example.com corp.example.com
nameserver 127.0.0.53
nameserver 192.0.2.53 ; comment
nameserver 2001:db8::53
options edns0 trust-ad
"""


def entries(text: str) -> dict[str, str]:
    return {name: line.split()[0] for line in text.splitlines() for name in line.split()[1:]}


def test_hosts_names_the_container_under_each_of_its_addresses() -> None:
    text = hosts("web", "example.com", ["172.30.0.2", "172.30.16.2"])
    assert text.endswith("172.30.0.2\tweb.example.com web\n172.30.16.2\tweb.example.com web\n")
    assert entries(text)["localhost"] == "127.0.0.1" or entries(text)["ip6-localhost"] == "::1"


def test_extra_hosts_may_point_at_the_host() -> None:
    text = hosts(
        "web",
        extra=[("db", "10.0.0.9"), ("six", "fd00::1"), ("me", "host-gateway")],
        host_gateway="172.30.0.1",
    )
    found = entries(text)
    assert (found["db"], found["six"], found["me"]) == ("10.0.0.9", "fd00::1", "172.30.0.1")


def test_a_host_entry_that_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'10\.0\.0' of host 'db'"):
        hosts("web", extra=[("db", "10.0.0")])
    with pytest.raises(InvalidInput, match="host-gateway"):
        hosts("web", extra=[("me", "host-gateway")])


def test_a_container_is_not_given_the_hosts_own_loopback_as_server() -> None:
    text = resolv_conf(HOST)
    assert text == "nameserver 192.0.2.53\nsearch example.com corp.example.com\noptions edns0 trust-ad\n"


def test_the_embedded_resolver_takes_the_place_of_all_servers() -> None:
    text = resolv_conf(HOST, embedded=True)
    assert [line for line in text.splitlines() if line.startswith("nameserver")] == ["nameserver 127.0.0.11"]
    assert text.endswith("options edns0 trust-ad ndots:0\n")


def test_what_the_user_gives_goes_before_the_hosts() -> None:
    text = resolv_conf(HOST, servers=["192.0.2.1"], search=["."], options=["ndots:2"])
    assert text == "nameserver 192.0.2.1\noptions ndots:2\n"
    assert "ndots:0" not in resolv_conf(HOST, embedded=True, options=["ndots:2"])


@pytest.mark.parametrize(
    ("named", "text", "servers", "needed"),
    [
        (True, HOST, (), True),
        (False, HOST, (), False),
        (False, "nameserver 127.0.0.53\n", (), True),
        (False, "nameserver ::1\n", (), True),
        (False, "", (), True),
        (False, "", ("192.0.2.1",), False),
    ],
)
def test_the_embedded_resolver_serves_those_who_have_no_other(
    named: bool, text: str, servers: tuple[str, ...], needed: bool
) -> None:
    assert needs_resolver(named, text, servers) is needed


def test_servers_by_ipv6_are_asked_by_us_not_by_the_container() -> None:
    text = "nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"
    assert nameservers(text) == ("fe80::1%eth0", "192.0.2.1", "2001:db8::1")
    assert resolv_conf(text) == "nameserver 192.0.2.1\n"


def test_glibc_heeds_three_servers_and_so_do_we() -> None:
    assert nameservers("".join(f"nameserver 192.0.2.{n}\n" for n in range(5))) == (
        "192.0.2.0",
        "192.0.2.1",
        "192.0.2.2",
    )
