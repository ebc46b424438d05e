"""IPv4 arithmetic: which subnet a new network gets, which address a new endpoint.

Pure, over integers: `ipaddress` costs more to import than all of this to run. The callers hold the database's write lock
while they choose and store, so two processes never choose the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from socket import inet_aton, inet_ntoa

from registry_client.values import frozen
from runtime.errors import Conflict, InvalidInput, Unsupported


@frozen
class Range:
    """A CIDR range; `base` has no host bits."""

    base: int
    prefix: int

    def __str__(self) -> str:
        return f"{dotted(self.base)}/{self.prefix}"

    @property
    def size(self) -> int:
        return 1 << (32 - self.prefix)

    @property
    def last(self) -> int:
        return self.base + self.size - 1

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.base <= address <= self.last

    def overlaps(self, other: Range) -> bool:
        return self.base <= other.last and other.base <= self.last


def number(address: str) -> int:
    """ "172.30.0.2" as an integer; only the four-part form is an address."""
    if ":" in address:
        raise Unsupported(f"IPv6 address {address!r}: networks are IPv4 only", hint="use an IPv4 address")
    try:
        if address.count(".") != 3:
            raise OSError
        return int.from_bytes(inet_aton(address), "big")
    except OSError:
        raise InvalidInput(f"{address!r} is not an IPv4 address") from None


def dotted(address: int) -> str:
    return inet_ntoa(address.to_bytes(4, "big"))


def parse_range(text: str) -> Range:
    """ "172.30.0.0/20"; host bits must be zero, as `ip` and Docker want it."""
    host, slash, length = text.partition("/")
    base = number(host)
    if not slash or not length.isdigit() or not 0 < int(length) <= 32:
        raise InvalidInput(f"{text!r} is not a subnet", hint="write it like 172.30.0.0/24")
    found = Range(base & ~((1 << (32 - int(length))) - 1), int(length))
    if found.base != base:
        raise InvalidInput(f"subnet {text!r} has host bits set", hint=f"did you mean `{found}`?")
    return found


# Where new networks come from: 256 of 1022 addresses each (a bridge holds 1023 ports). Docker starts at 172.17, podman
# at 10.88, so the engines do not get into each other's way even before they look at the routes.
POOLS: tuple[tuple[Range, int], ...] = (
    (Range(0xAC1E0000, 15), 22),  # 172.30.0.0/15
    (Range(0x0AC90000, 16), 22),  # 10.201.0.0/16
    (Range(0xC0A80000, 16), 22),  # 192.168.0.0/16
)


def candidates(pools: Iterable[tuple[Range, int]]) -> Iterator[Range]:
    for pool, prefix in pools:
        step = 1 << (32 - prefix)
        for base in range(pool.base, pool.last + 1, step):
            yield Range(base, prefix)


def choose_subnet(taken: Collection[Range], pools: Iterable[tuple[Range, int]] = POOLS) -> Range:
    """The first range of the pools that touches none of the taken ones."""
    for candidate in candidates(pools):
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise Conflict(
        "all address pools are in use",
        hint="remove unused networks with `pipe network prune`, or name a range with --subnet",
    )


def choose_address(within: Range, subnet: Range, taken: Collection[int], after: int) -> int:
    """The next free address behind `after`, in a circle: a freed one is not given away again at once (ARP, conntrack)."""
    first, last = max(within.base, subnet.base + 1), min(within.last, subnet.last - 1)
    if subnet.prefix >= 31:  # RFC 3021: no network and broadcast address
        first, last = within.base, within.last
    count = last - first + 1
    start = after + 1 if first <= after < last else first
    for offset in range(max(count, 0)):
        address = first + (start - first + offset) % count
        if address not in taken:
            return address
    raise Conflict(
        f"no free address left in {within}", hint="remove containers, or use a network with a larger subnet"
    )


def mac_of(address: int) -> str:
    """A hardware address made of the IPv4 one: who gets an address again keeps its neighbours' ARP entries right."""
    return "02:42:" + address.to_bytes(4, "big").hex(":")


def check_mac(mac: str) -> str:
    """A unicast Ethernet address, in lower case with colons."""
    parts = mac.lower().replace("-", ":").split(":")
    valid = len(parts) == 6 and all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts)
    if not valid or int(parts[0], 16) & 1:
        raise InvalidInput(
            f"{mac!r} is not a unicast hardware address", hint="write it like 02:42:ac:1e:00:02"
        )
    return ":".join(parts)
