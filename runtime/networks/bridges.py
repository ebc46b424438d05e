"""Bridges and cables: the kernel's side of a network and of an endpoint. What should exist is the database's business."""

from __future__ import annotations

import errno
import re

from runtime.errors import Conflict, HostFault
from runtime.linux.netlink import Link, Netlink
from runtime.networks import host
from runtime.networks.addresses import dotted, mac_of
from runtime.networks.values import Endpoint, Network

_ALIAS = re.compile(r"pipe network [0-9a-f]{12} of (/.*)")
_LONGEST = 255  # IFALIASZ, without its NUL


def alias_of(network: Network, root: str) -> str:
    """What `ip -d link` shows of whose bridge this is: the network, and the store it belongs to."""
    text = f"pipe network {network.id[:12]} of {root}"
    return text.encode()[:_LONGEST].decode(errors="ignore")


def root_of(alias: str) -> str:
    """The store of a bridge of ours; "" when it cannot be told."""
    found = _ALIAS.fullmatch(alias)
    return found[1] if found and len(alias.encode()) < _LONGEST - 3 else ""


def find_bridge(netlink: Netlink, network: Network, root: str) -> Link | None:
    """The network's bridge when it is there, ours and up."""
    link = netlink.link(network.device)
    return link if link and link.up and link.alias == alias_of(network, root) else None


def make_bridge(netlink: Netlink, network: Network, root: str) -> Link:
    """The network's bridge, made anew unless it is there; the caller holds the host's lock."""
    found = find_bridge(netlink, network, root)
    if found is not None:
        return found
    if netlink.link(network.device) is not None:
        netlink.delete_link(network.device).commit()  # of an earlier store at this path, or half made
    # A bridge without a fixed address changes it with its ports, and every container's ARP entry with it.
    netlink.add_bridge(network.device, mac=mac_of(network.gateway), mtu=network.mtu, up=False).commit()
    link = _must(netlink, network)
    # No IPv6: its link-local addresses would be a way around the packet filter. localhost: see `rules`.
    host.switch(f"ipv6/conf/{network.device}/disable_ipv6", "1")
    host.switch(f"ipv4/conf/{network.device}/route_localnet", "1")
    netlink.add_address(link.index, f"{dotted(network.gateway)}/{network.subnet.prefix}")
    netlink.set_link(link.index, up=True, alias=alias_of(network, root))
    netlink.commit()
    return link


def _must(netlink: Netlink, network: Network) -> Link:
    link = netlink.link(network.device)
    if link is None:
        raise HostFault(f"bridge {network.device} vanished while it was set up")
    return link


def remove_bridge(netlink: Netlink, device: str) -> None:
    """Take away a bridge and the cables that still hang on it."""
    bridge = netlink.link(device)
    if bridge is None:
        return
    for link in netlink.links():
        if link.master == bridge.index and link.kind == "veth":
            remove_link(netlink, link.name)
    remove_link(netlink, device)


def remove_link(netlink: Netlink, name: str) -> None:
    try:
        netlink.delete_link(name).commit()
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def plug(netlink: Netlink, bridge: Link, endpoint: Endpoint, *, pid: int = 0, namespace: int = -1) -> None:
    """A cable from the bridge into a network namespace; the container's end still has to be configured inside."""
    netlink.add_veth(
        endpoint.device,
        endpoint.interface,
        pid=pid,
        namespace=namespace,
        mac=endpoint.mac,
        mtu=endpoint.network.mtu,
        master=bridge.index,
    )
    try:
        netlink.commit()
    except OSError as error:
        if error.errno == errno.EXFULL:
            hint = "a bridge has 1023 ports; spread the containers over several networks"
            raise HostFault(f"network {endpoint.network.name} is full", hint=hint) from error
        if error.errno == errno.EEXIST:
            raise Conflict(
                f"interface {endpoint.interface} of {endpoint.container_name} exists already"
            ) from error
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.EBADF):
            raise Conflict(
                f"container {endpoint.container_name} ended before its network was attached"
            ) from error
        raise HostFault(f"cannot attach {endpoint.container_name}: {error.strerror}") from error
    _set_port(netlink, endpoint)


def _set_port(netlink: Netlink, endpoint: Endpoint) -> None:
    # Where br_netfilter shows bridged frames to the packet filter, a container that calls its own published port is
    # translated on the bridge and not above it, so the frame goes out of the port it came in by.
    isolated, hairpin = not endpoint.network.icc, host.bridges_are_filtered()
    if (isolated or hairpin) and (link := netlink.link(endpoint.device)):
        netlink.set_port(link.index, isolated=isolated, hairpin=hairpin).commit()
