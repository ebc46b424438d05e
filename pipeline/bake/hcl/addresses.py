"""Functions of networks: `cidrhost` and its like."""

from __future__ import annotations

import ipaddress
from typing import Any

from pipeline.bake.hcl.evaluate import as_number, as_text
from runtime.errors import InvalidInput

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(prefix: Any) -> Network:
    try:
        return ipaddress.ip_network(as_text(prefix), strict=False)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def host(prefix: Any, number: Any) -> str:
    """A negative number counts from the end."""
    network, wanted = _network(prefix), int(as_number(number))
    if not -network.num_addresses <= wanted < network.num_addresses:
        raise InvalidInput(f"{network} has no host number {wanted}")
    return str(network[wanted])


def netmask(prefix: Any) -> str:
    return str(_network(prefix).netmask)


def _below(network: Network, bits: int, number: int) -> Network:
    length = network.prefixlen + bits
    if bits < 0 or length > network.max_prefixlen or not 0 <= number < 1 << bits:
        raise InvalidInput(f"{network} has no network number {number} of {bits} bits")
    start = int(network.network_address) + (number << (network.max_prefixlen - length))
    return (
        ipaddress.ip_network((start, length))
        if network.version == 4
        else ipaddress.IPv6Network((start, length))
    )


def subnet(prefix: Any, bits: Any, number: Any) -> str:
    return str(_below(_network(prefix), int(as_number(bits)), int(as_number(number))))


def subnets(prefix: Any, *sizes: Any) -> list[str]:
    """One network of each number of bits more, each behind the one before."""
    network = _network(prefix)
    at, found = int(network.network_address), []
    for size in sizes:
        length = network.prefixlen + int(as_number(size))
        step = 1 << (network.max_prefixlen - length) if length <= network.max_prefixlen else 0
        if not step:
            raise InvalidInput(f"{network} has no networks of {size} bits more")
        at = -(-at // step) * step
        if at + step > int(network.broadcast_address) + 1:
            raise InvalidInput(f"{network} has no room for all of them")
        found.append(f"{type(network.network_address)(at)}/{length}")
        at += step
    return found
