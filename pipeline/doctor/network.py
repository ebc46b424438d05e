"""Networking: the packet filter, forwarding, name servers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Level
from pipeline.doctor.host import Host
from runtime.networks import names


def packet_filter(host: Host) -> Iterator[Finding]:
    if host.library("libnftables.so.1") or host.program("nft"):
        yield Finding("packet filter", Level.OK, "nftables")
    elif host.program("iptables"):
        hint = "install the package nftables: starting containers with published ports is faster with it"
        yield Finding("packet filter", Level.NOTE, "iptables", hint)
    else:
        hint = "install the package nftables"
        yield Finding("packet filter", Level.LIMITED, "neither nftables nor iptables: no networks", hint)


def forwarding(host: Host) -> Iterator[Finding]:
    if host.read("/proc/sys/net/ipv4/ip_forward").strip() == "1":
        yield Finding("forwarding", Level.OK, "net.ipv4.ip_forward is on")
    else:
        yield Finding(
            "forwarding", Level.NOTE, "net.ipv4.ip_forward is off", "the first network switches it on"
        )


def other_filters(host: Host) -> Iterator[Finding]:
    """Chains that drop what is forwarded. In iptables' own we make room; others are somebody's firewall, and left alone."""
    if not host.real or host.user != 0 or not host.library("libnftables.so.1"):
        return
    for family, table, chain in _dropping_chains():
        name = f"{family} {table} {chain}"
        if (family, table, chain) == ("ip", "filter", "FORWARD"):
            yield Finding(
                "other filters",
                Level.NOTE,
                f"{name} drops by default (another engine?); room is made for containers",
            )
        else:
            hint = f'`nft insert rule {name} iifname "pipe-*" accept`, and the same with oifname'
            yield Finding("other filters", Level.LIMITED, f"{name} drops what containers send", hint)


def _dropping_chains() -> Iterator[tuple[str, str, str]]:
    from runtime.networks import nft

    for record in json.loads(nft.run("list chains", json=True))["nftables"]:
        chain = record.get("chain", {})
        if (
            chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and chain["family"] in ("ip", "inet")
        ):
            yield chain["family"], chain["table"], chain["name"]


def firewalld(host: Host) -> Iterator[Finding]:
    if host.exists("/run/firewalld") or host.exists("/var/run/firewalld.pid"):
        hint = "`firewall-cmd --permanent --zone=trusted --add-source=RANGE` and `--reload`; `pipe network ls` shows the ranges"
        yield Finding("firewalld", Level.NOTE, "runs here, and may reject what containers send", hint)


def name_servers(host: Host) -> Iterator[Finding]:
    text = host.read("/etc/resolv.conf")
    servers = names.nameservers(text)
    if not servers:
        hint = "name a server in /etc/resolv.conf: builds cannot fetch anything without"
        yield Finding("name servers", Level.LIMITED, "/etc/resolv.conf names no server", hint)
    elif not names.reachable(text):
        detail = f"{', '.join(servers)}: not to be reached from containers, which ask through us"
        yield Finding("name servers", Level.OK, detail)
    else:
        yield Finding("name servers", Level.OK, ", ".join(servers))


CHECKS = (packet_filter, forwarding, other_filters, firewalld, name_servers)
