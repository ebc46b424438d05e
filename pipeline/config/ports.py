"""Published ports as Compose writes them: `8080:80`, `127.0.0.1:8000-8002:8000-8002/udp`, and the long form. Pure.

One difference: a port without an address is published for this host only. A pipeline starts things nobody looks after, and
published ports pass the host's firewall by; `0.0.0.0:8080:80` says that the network is meant (FEATURES D-31, I-13).
"""

from __future__ import annotations

import re

from runtime.containers.spec import PortBinding

UNSAID = "127.0.0.1"
_PORT = re.compile(
    r"(?:(?P<ip>\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):)?"
    r"(?:(?P<host>\d{1,5}(?:-\d{1,5})?)?:)?(?P<inside>\d{1,5}(?:-\d{1,5})?)(?:/(?P<protocol>tcp|udp|sctp))?"
)


def parse_port(text: str) -> tuple[PortBinding, ...]:
    """One short form; a range becomes several bindings. ValueError says what is wrong."""
    match = _PORT.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"invalid port {text!r}: write `HOST:CONTAINER`, `IP:HOST:CONTAINER` or `CONTAINER`, with `/udp`"
        )
    ip = (match["ip"] or UNSAID).strip("[]")
    return bindings(match["inside"], match["host"] or "", ip, match["protocol"] or "tcp")


def bindings(inside: str, host: str = "", ip: str = UNSAID, protocol: str = "tcp") -> tuple[PortBinding, ...]:
    """The bindings of a range onto a range, or of one port onto any free one of a range (the first of it)."""
    targets = _range(inside)
    hosts = _range(host) if host else [0] * len(targets)
    if len(hosts) != len(targets):
        if len(targets) != 1:
            raise ValueError(f"port ranges {host} and {inside} have different lengths")
        hosts = hosts[:1]
    return tuple(
        PortBinding(container_port=target, protocol=protocol, host_port=published, host_ip=ip)
        for target, published in zip(targets, hosts, strict=True)
    )


def _range(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise ValueError(f"invalid port {text!r}")
    low, high = int(first), int(last or first)
    if not 0 < low <= high < 65536:
        raise ValueError(f"invalid port {text!r}: ports are 1 to 65535")
    if high - low > 1000:
        raise ValueError(f"port range {text!r} is too long")
    return list(range(low, high + 1))
