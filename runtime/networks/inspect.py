"""Networks as `docker network` tells of them: one as JSON, and which of them a list is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from runtime.networks.values import Endpoint, Network

FILTERS = ("name", "id", "driver", "label", "type", "dangling", "scope")


def fits(network: Network, wanted: Mapping[str, Sequence[str]], used: Collection[str]) -> bool:
    """Docker's filters: those of one kind are alternatives, kinds must all hold. `used` are ids of networks."""
    return all(any(_matches(network, key, value, used) for value in values) for key, values in wanted.items())


def _matches(network: Network, key: str, value: str, used: Collection[str]) -> bool:
    builtin = network.name in ("bridge", "host", "none")
    match key:
        case "name":
            return value in network.name
        case "id":
            return network.id.startswith(value)
        case "driver":
            return network.driver == value
        case "scope":
            return value == "local"
        case "type":
            return value == ("builtin" if builtin else "custom")
        case "dangling":
            return (value.lower() in ("true", "1")) == (not builtin and network.id not in used)
        case _:
            name, equals, wanted = value.partition("=")
            return name in network.labels and (not equals or network.labels[name] == wanted)


def network_record(network: Network, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """As `docker network inspect` shows it."""
    from datetime import UTC, datetime

    config = {"Subnet": str(network.subnet), "Gateway": network.gateway_address}
    if network.ip_range:
        config["IPRange"] = str(network.ip_range)
    bridged = network.driver == "bridge"
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": datetime.fromtimestamp(network.created, UTC).isoformat(),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": bridged,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": [config] if bridged else []},
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "Containers": {
            each.container_id: {
                "Name": each.container_name,
                "EndpointID": each.id,
                "MacAddress": each.mac,
                "IPv4Address": f"{each.address}/{network.subnet.prefix}",
                "IPv6Address": "",
            }
            for each in endpoints
        },
        "Options": _options(network) if bridged else {},
        "Labels": dict(network.labels),
    }


def _options(network: Network) -> dict[str, str]:
    prefix = "com.docker.network."
    options = {
        f"{prefix}bridge.name": network.device,
        f"{prefix}driver.mtu": str(network.mtu),
        f"{prefix}bridge.enable_icc": str(network.icc).lower(),
        f"{prefix}bridge.enable_ip_masquerade": str(network.masquerade).lower(),
    }
    return options | ({f"{prefix}bridge.host_binding_ipv4": network.host_ip} if network.host_ip else {})
