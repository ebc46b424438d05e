"""The text of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container. Pure, except for reading the host's own."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from runtime.errors import InvalidInput
from runtime.networks.addresses import number

RESOLVER = "127.0.0.11"
_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts(
    hostname: str,
    domainname: str = "",
    addresses: Iterable[str] = (),
    extra: Iterable[tuple[str, str]] = (),
    host_gateway: str = "",
) -> str:
    """/etc/hosts: localhost, what `--add-host` says, and the container itself under each of its addresses."""
    text = _LOCAL
    for name, address in extra:
        text += f"{_host_address(name, address, host_gateway)}\t{name}\n"
    own = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    return text + "".join(f"{address}\t{own}\n" for address in addresses if hostname)


def _host_address(name: str, address: str, host_gateway: str) -> str:
    if address == "host-gateway":
        if not host_gateway:
            raise InvalidInput(f"host {name!r} is host-gateway, but the container is on no bridge network")
        return host_gateway
    if not _is_address(address):
        raise InvalidInput(f"address {address!r} of host {name!r} is not an IP address")
    return address


def _is_address(text: str) -> bool:
    """IPv4 or IPv6. (`ipaddress` would cost every start of a container a millisecond.)"""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text.partition("%")[0])  # "fe80::1%eth0" has its link behind it
        except OSError:
            continue
        return True
    return False


def hostname_file(hostname: str) -> str:
    return f"{hostname}\n"


def read_host_resolv_conf(path: str = "/etc/resolv.conf") -> str:
    """The host's own; "" when it has none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, PermissionError):
        return ""


def _directives(text: str, word: str) -> list[list[str]]:
    lines = [line.split("#")[0].split(";")[0].split() for line in text.splitlines()]
    return [line[1:] for line in lines if line and line[0] == word]


def nameservers(text: str) -> tuple[str, ...]:
    """The servers of a resolv.conf, of which glibc heeds the first three (resolv.conf(5), MAXNS)."""
    found = [words[0] for words in _directives(text, "nameserver") if words]
    return tuple(server for server in found[:3] if _is_address(server))


def reachable(text: str) -> tuple[str, ...]:
    """Those of them a container can ask itself: not the ones on the host's loopback, and none by IPv6."""
    found = [server for server in nameservers(text) if ":" not in server]
    return tuple(server for server in found if number(server) >> 24 != 127)


def needs_resolver(named: bool, host_text: str, servers: Sequence[str] = ()) -> bool:
    """Whether a container must be given the embedded resolver: for names, or because it reaches no other."""
    return named or not (servers or reachable(host_text))


def resolv_conf(
    host_text: str,
    *,
    embedded: bool = False,
    servers: Sequence[str] = (),
    search: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> str:
    """/etc/resolv.conf after the host's; what is given replaces the host's. `search` of "." clears it."""
    chosen = (RESOLVER,) if embedded else tuple(servers) or reachable(host_text)
    domains = list(search) if search else next(reversed(_directives(host_text, "search")), [])
    words = list(options) or [option for line in _directives(host_text, "options") for option in line]
    if embedded and not any(word.startswith("ndots:") for word in words):
        words.append("ndots:0")  # a container's name has no dot, and is to be asked for as it is
    text = "".join(f"nameserver {server}\n" for server in chosen)
    if domains and domains != ["."]:
        text += f"search {' '.join(domains)}\n"
    return text + (f"options {' '.join(words)}\n" if words else "")
