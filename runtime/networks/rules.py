"""The packet filter of one store, as text for nft. Pure.

One table per store, `ip pipe-<key>`; all bridges of the store begin with that name, so most rules are made once and
a network or a published port is an element of a set. What the chains do:

* raw        containers do not reach the host's 127.0.0.0/8 (`route_localnet` is on for their bridges, see `published`)
* published  DNAT of published ports; 127.0.0.1 only for what the host itself sends, because a neighbour on the
             host's network can put 127.0.0.1 on the wire too (moby/moby#45610)
* postrouting  masquerade what leaves, and what comes back in over the host (hairpin, localhost)
* forward    runs one step before other people's filters. A drop is final in nftables, an accept is not: so here is
             decided what must not pass, and `foreign` rules can then be plain. Ours do not reach other bridges (of
             this store or of other engines), nobody reaches ours unasked except over a published port.
"""

from __future__ import annotations

from collections.abc import Iterable

from registry_client.values import frozen
from runtime.networks.values import Network

ANYWHERE = "0.0.0.0"


@frozen(kw_only=True)
class Port:
    """A published port: what arrives at the host's goes to the container's."""

    protocol: str
    host_ip: str
    host_port: int
    address: str
    container_port: int


_TABLE = """
table ip {table} {{
  set internal {{ type ifname; }}
  set within {{ type ifname . ifname; }}
  set uplinks {{ type ifname; }}
  set subnets {{ type ipv4_addr . ifname; flags interval; }}
  set masqueraded {{ type ipv4_addr; flags interval; }}
  map anywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map specific {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{table}*" ip daddr 127.0.0.0/8 drop
  }}
  chain published {{
    dnat ip to ip daddr . meta l4proto . th dport map @specific
    fib daddr type local dnat ip to meta l4proto . th dport map @anywhere
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    jump published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump published
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 127.0.0.0/8 oifname "{table}*" masquerade
    ct status dnat ip saddr . oifname @subnets masquerade
    ip saddr @masqueraded oifname != "{table}*" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter - 1; policy accept;
    iifname "{table}*" jump from_us
    oifname "{table}*" jump to_us
  }}
  chain from_us {{
    iifname . oifname @within accept
    iifname @internal drop
    oifname @internal drop
    ct state established,related accept
    ct status dnat accept
    oifname "{table}*" drop
    oifname @uplinks accept
    meta oifkind "bridge" drop
  }}
  chain to_us {{
    oifname @internal drop
    ct state established,related accept
    ct status dnat accept
    iifname . oifname @within accept
    drop
  }}
}}
"""


def whole(table: str, networks: Iterable[Network], ports: Iterable[Port], uplinks: Iterable[str]) -> str:
    """The table with all it must hold, replacing what is there in one transaction."""
    text = f"table ip {table} {{ }}\ndelete table ip {table}\n" + _TABLE.format(table=table)
    text += "".join(add_network(table, network) for network in networks)
    text += "".join(add_port(table, port) for port in ports)
    return text + "".join(f'add element ip {table} uplinks {{ "{name}" }}\n' for name in uplinks)


def remove(table: str) -> str:
    return f"table ip {table} {{ }}\ndelete table ip {table}\n"


def _network_elements(network: Network) -> list[str]:
    device = f'"{network.device}"'
    elements = [f"subnets {{ {network.subnet} . {device} }}"]
    if (
        network.icc
    ):  # else their ports are isolated on the bridge, and the way over the gateway is closed here
        elements.append(f"within {{ {device} . {device} }}")
    if network.internal:
        elements.append(f"internal {{ {device} }}")
    elif network.masquerade:
        elements.append(f"masqueraded {{ {network.subnet} }}")
    return elements


def add_network(table: str, network: Network) -> str:
    return "".join(f"add element ip {table} {element}\n" for element in _network_elements(network))


def remove_network(table: str, network: Network) -> str:
    return "".join(f"delete element ip {table} {element}\n" for element in _network_elements(network))


def _port_key(port: Port) -> tuple[str, str]:
    if port.host_ip == ANYWHERE:
        return "anywhere", f"{port.protocol} . {port.host_port}"
    return "specific", f"{port.host_ip} . {port.protocol} . {port.host_port}"


def add_port(table: str, port: Port) -> str:
    name, key = _port_key(port)
    return f"add element ip {table} {name} {{ {key} : {port.address} . {port.container_port} }}\n"


def remove_port(table: str, port: Port) -> str:
    name, key = _port_key(port)
    return f"delete element ip {table} {name} {{ {key} }}\n"


def foreign(table: str) -> tuple[str, str]:
    """What lets our bridges through a FORWARD chain whose policy is to drop.

    Only words that iptables-nft can read back (no `ct state`, no sets): a rule it cannot parse makes `iptables` refuse
    the whole table, and with it the engine that owns it. They need not be narrow: `forward` above dropped the rest.
    """
    return f'iifname "{table}*" counter accept', f'oifname "{table}*" counter accept'
