"""Ports of EXPOSE: `80`, `80/udp`, `8000-8010`, and the host forms that only a lint objects to (FEATURES A-47)."""

from __future__ import annotations

PROTOCOLS = ("tcp", "udp", "sctp")


def parse_ports(text: str) -> tuple[str, ...]:
    """Every port of one word as `number/protocol`; ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    numbers, slash, protocol = port.partition("/")
    protocol = protocol.lower() if slash and protocol else "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"invalid protocol {protocol!r} in port {text!r}: want tcp, udp or sctp")
    first, last = _range(numbers, text)
    if colon:
        _check_host(host, text, last - first)
    return tuple(f"{number}/{protocol}" for number in range(first, last + 1))


def _range(numbers: str, text: str) -> tuple[int, int]:
    first, dash, last = numbers.partition("-")
    ends = (first, last if dash else first)
    if not all(end.isascii() and end.isdigit() and len(end) <= 5 and int(end) <= 65_535 for end in ends):
        raise ValueError(f"invalid port {text!r}: want a number up to 65535 or a range")
    if int(ends[1]) < int(ends[0]):
        raise ValueError(f"invalid port range {text!r}: it ends before it begins")
    return int(ends[0]), int(ends[1])


def _check_host(host: str, text: str, width: int) -> None:
    import ipaddress

    address, colon, port = host.rpartition(":")
    if port:
        first, last = _range(port, text)
        if width and last - first != width:
            raise ValueError(f"invalid port {text!r}: the ranges of host and container differ in length")
    if colon and address:
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError as error:
            raise ValueError(f"invalid IP address {address!r} in port {text!r}") from error
