"""What a user says of a new network, checked and completed. Pure: facts about the host are handed in."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from registry_client.values import replace
from runtime.errors import Conflict, InvalidInput, Unsupported, did_you_mean
from runtime.networks.addresses import Range, choose_subnet, dotted, number, parse_range
from runtime.networks.values import Network

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OPTIONS = {
    "mtu": "mtu",
    "icc": "icc",
    "masquerade": "masquerade",
    "host-binding": "host_ip",
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.bridge.enable_icc": "icc",
    "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
    "com.docker.network.bridge.host_binding_ipv4": "host_ip",
}


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a network name",
            hint="letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
        )
    if name in ("host", "none", "default"):
        raise Conflict(f"{name} is a predefined network")


def check_driver(driver: str) -> None:
    if driver in ("macvlan", "ipvlan", "overlay"):
        raise Unsupported(f"network driver {driver!r} is not supported", hint="use the bridge driver")
    if driver != "bridge":
        raise InvalidInput(f"unknown network driver {driver!r}", hint=did_you_mean(driver, ["bridge"]))


def with_options(network: Network, options: Mapping[str, str]) -> Network:
    values: dict[str, str | int | bool] = {}
    for name, text in options.items():
        if name not in _OPTIONS:
            raise InvalidInput(f"unknown network option {name!r}", hint=did_you_mean(name, _OPTIONS))
        field = _OPTIONS[name]
        if field == "mtu":
            if not text.isdigit() or not 576 <= int(text) <= 65535:
                raise InvalidInput(f"mtu {text!r} is not between 576 and 65535")
            values[field] = int(text)
        elif field == "host_ip":
            number(text)
            values[field] = text
        elif text.lower() in ("true", "false", "1", "0"):
            values[field] = text.lower() in ("true", "1")
        else:
            raise InvalidInput(f"network option {name} is {text!r}", hint="use true or false")
    return replace(network, **values)


def names_mtu(options: Mapping[str, str]) -> bool:
    return "mtu" in {_OPTIONS[option] for option in options}


def place(
    draft: Network,
    subnet: str,
    gateway: str,
    ip_range: str,
    *,
    others: Collection[Network],
    occupied: Collection[Range],
    pools: Iterable[tuple[Range, int]],
) -> Network:
    """The network with its addresses decided: those that were asked for, else free ones."""
    chosen = (
        _check_subnet(parse_range(subnet), others, occupied)
        if subnet
        else choose_subnet([*occupied, *(other.subnet for other in others)], pools)
    )
    door = number(gateway) if gateway else chosen.base + 1
    if door not in chosen or door in (chosen.base, chosen.last):
        raise InvalidInput(f"gateway {dotted(door)} is not an address of {chosen}")
    within = parse_range(ip_range) if ip_range else None
    if within and not (within.base in chosen and within.last in chosen):
        raise InvalidInput(f"ip range {within} is not within {chosen}")
    for text in draft.reserved.values():
        if number(text) not in chosen:
            raise InvalidInput(f"auxiliary address {text} is not within {chosen}")
    return replace(draft, subnet=chosen, gateway=door, ip_range=within, automatic=not subnet)


def _check_subnet(wanted: Range, others: Collection[Network], occupied: Collection[Range]) -> Range:
    clash = next((other for other in others if other.subnet.overlaps(wanted)), None)
    if clash:
        raise Conflict(f"subnet {wanted} overlaps {clash.subnet} of network {clash.name}")
    if any(wanted.overlaps(taken) for taken in occupied):
        raise Conflict(f"subnet {wanted} is in use on this host", hint="`ip route` shows by what")
    if wanted.prefix > 30:
        raise InvalidInput(f"subnet {wanted} has no room for containers", hint="use at most /30")
    return wanted
