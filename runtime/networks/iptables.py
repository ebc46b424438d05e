"""The rules of `rules` said in iptables, for hosts without nftables.

Chains `PIPE-<key>` in raw, nat and filter, each jumped to from the built-in ones. It is coarser than nftables where
iptables has no words: containers reach what is behind the default route's links, and the policy decides the rest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from shutil import which

from runtime.errors import HostFault
from runtime.linux.netlink import Netlink
from runtime.networks import host
from runtime.networks.rules import ANYWHERE, Port
from runtime.networks.values import Network

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
Rule = tuple[str, str, str]  # table, chain, words


class Iptables:
    """A `firewall.Backend`."""

    def __init__(self, table: str) -> None:
        self._devices = f"{table}+"
        self.chain = table.upper()
        self._post = f"{self.chain}-POST"
        program = which("iptables", path=_PATH)
        if program is None:
            raise HostFault("neither nftables nor iptables is installed", hint="install the package nftables")
        self._program = program

    def complete(self, uplinks: Iterable[str]) -> bool:
        return all(self._has(rule) for rule in self._jumps()) and all(
            self._has(rule) for rule in self._fixed()
        )

    def install(self, networks: Iterable[Network], ports: Iterable[Port], uplinks: Iterable[str]) -> None:
        for table, chain in self._chains():
            if self._run(table, "-n", "-L", chain).returncode:
                self._must(table, "-N", chain)
            self._must(table, "-F", chain)
        for rule in self._fixed():
            self._must(rule[0], "-A", rule[1], *rule[2].split())
        for network in networks:
            self.add_network(network)
        self.add_ports(ports)
        for rule in self._jumps():
            if not self._has(rule):
                self._must(rule[0], "-I", rule[1], *rule[2].split())

    def remove(self) -> None:
        for rule in self._jumps():
            self._delete(rule)
        for table, chain in self._chains():
            self._run(table, "-F", chain)
            self._run(table, "-X", chain)

    def add_network(self, network: Network) -> None:
        for rule in self._of_network(network):
            self._insert(rule)

    def remove_network(self, network: Network) -> None:
        for rule in self._of_network(network):
            self._delete(rule)

    def add_ports(self, ports: Iterable[Port]) -> None:
        for port in ports:
            self._insert(self._of_port(port))

    def remove_ports(self, ports: Iterable[Port]) -> None:
        for port in ports:
            self._delete(self._of_port(port))

    # the rules

    def _chains(self) -> list[tuple[str, str]]:
        return [("raw", self.chain), ("nat", self.chain), ("nat", self._post), ("filter", self.chain)]

    def _jumps(self) -> list[Rule]:
        local = f"-m addrtype --dst-type LOCAL -j {self.chain}"
        return [
            ("raw", "PREROUTING", f"-j {self.chain}"),
            ("nat", "PREROUTING", f"! -d 127.0.0.0/8 {local}"),
            ("nat", "OUTPUT", local),
            ("nat", "POSTROUTING", f"-j {self._post}"),
            ("filter", "FORWARD", f"-j {self.chain}"),
        ]

    def _fixed(self) -> list[Rule]:
        ours, chain = self._devices, self.chain
        rules = [
            ("raw", chain, f"-i {ours} -d 127.0.0.0/8 -j DROP"),
            ("nat", self._post, f"-s 127.0.0.0/8 -o {ours} -j MASQUERADE"),
        ]
        for states in ("RELATED,ESTABLISHED", "DNAT"):
            for direction in ("-i", "-o"):
                rules.append(
                    ("filter", chain, f"{direction} {ours} -m conntrack --ctstate {states} -j ACCEPT")
                )
        rules.append(("filter", chain, f"-o {ours} -j DROP"))
        with Netlink() as netlink:
            indexes = host.uplinks(netlink)
            names = [link.name for link in netlink.links() if link.index in indexes]
        return rules + [("filter", chain, f"-i {ours} -o {name} -j ACCEPT") for name in names]

    def _of_network(self, network: Network) -> list[Rule]:
        """In the order they are inserted: the last one stands first in its chain."""
        device, subnet, chain = network.device, network.subnet, self.chain
        hairpin = f"-m conntrack --ctstate DNAT -s {subnet} -o {device} -j MASQUERADE"
        rules: list[Rule] = [("nat", self._post, hairpin)]
        if network.internal:
            rules += [("filter", chain, f"-i {device} -j DROP"), ("filter", chain, f"-o {device} -j DROP")]
        elif network.masquerade:
            rules.append(("nat", self._post, f"-s {subnet} ! -o {self._devices} -j MASQUERADE"))
        if network.icc:
            rules.append(("filter", chain, f"-i {device} -o {device} -j ACCEPT"))
        return rules

    def _of_port(self, port: Port) -> Rule:
        where = "" if port.host_ip == ANYWHERE else f"-d {port.host_ip} "
        words = f"{where}-p {port.protocol} --dport {port.host_port} -j DNAT --to {port.address}:{port.container_port}"
        return "nat", self.chain, words

    # the program

    def _run(self, table: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [self._program, "-w", "-t", table, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _must(self, table: str, *words: str) -> None:
        done = self._run(table, *words)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
            raise HostFault(f"iptables refused `-t {table} {' '.join(words)}`: {reason}")

    def _has(self, rule: Rule) -> bool:
        return self._run(rule[0], "-C", rule[1], *rule[2].split()).returncode == 0

    def _insert(self, rule: Rule) -> None:
        if not self._has(rule):
            self._must(rule[0], "-I", rule[1], *rule[2].split())

    def _delete(self, rule: Rule) -> None:
        if self._has(rule):
            self._must(rule[0], "-D", rule[1], *rule[2].split())
