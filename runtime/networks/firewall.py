"""Keep the host's packet filter as `rules` says, whoever else changes it.

Rules are made once and stay; a container start only looks whether anything changed. The kernel counts the commits to its
rule set (NFT_MSG_GETGEN): while that number is the one we noted, all is as we left it. A firewall's reload, another
engine's start or a reboot changes it, and then what is missing is put back.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable, Iterable
from typing import Protocol

from runtime.errors import HostFault
from runtime.linux.netlink import Netlink, attributes
from runtime.networks import host, nft, rules
from runtime.networks.records import NetworkRecords
from runtime.networks.rules import Port
from runtime.networks.values import Network

_NETLINK_NETFILTER, _GETGEN = 12, 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN


class Backend(Protocol):
    """One way to filter packets."""

    def complete(self, uplinks: Iterable[str]) -> bool:
        """Whether our rules are there and know the uplinks, and the accepts in other people's chains."""

    def install(self, networks: Iterable[Network], ports: Iterable[Port], uplinks: Iterable[str]) -> None: ...
    def remove(self) -> None: ...
    def add_network(self, network: Network) -> None: ...
    def remove_network(self, network: Network) -> None: ...
    def add_ports(self, ports: Iterable[Port]) -> None: ...
    def remove_ports(self, ports: Iterable[Port]) -> None: ...


class Nft:
    """The table `ip pipe-<key>` and two rules in `ip filter FORWARD` where that drops."""

    def __init__(self, table: str) -> None:
        self.table = table

    def complete(self, uplinks: Iterable[str]) -> bool:
        try:
            forward = nft.run(f"list chain ip {self.table} forward")
            known = nft.run(f"list set ip {self.table} uplinks")
        except nft.NftError:
            return False
        current = {f'"{name}"' for name in uplinks} == set(re.findall(r'"[^"]+"', known))
        return current and "jump from_us" in forward and self._open_chain() is None

    def install(self, networks: Iterable[Network], ports: Iterable[Port], uplinks: Iterable[str]) -> None:
        nft.run(rules.whole(self.table, networks, ports, uplinks))
        self._open()

    def remove(self) -> None:
        nft.run(rules.remove(self.table))
        for chain in ("FORWARD", "DOCKER-USER"):
            for line in _lines(chain):
                if f'"{self.table}*"' in line:
                    nft.run(f"delete rule ip filter {chain} handle {line.rpartition('# handle ')[2]}")

    def add_network(self, network: Network) -> None:
        nft.run(rules.add_network(self.table, network))

    def remove_network(self, network: Network) -> None:
        for line in rules.remove_network(self.table, network).splitlines():
            _tolerant(line)

    def add_ports(self, ports: Iterable[Port]) -> None:
        text = "".join(rules.add_port(self.table, port) for port in ports)
        try:
            nft.run(text)
        except nft.NftError:
            # What is left of one that was killed before it could withdraw them; its rows are gone, so the ports are ours.
            self.remove_ports(ports)
            nft.run(text)

    def remove_ports(self, ports: Iterable[Port]) -> None:
        lines = [rules.remove_port(self.table, port) for port in ports]
        try:
            nft.run("".join(lines))
        except nft.NftError:
            for line in lines:
                _tolerant(line)

    # Other engines set the policy of iptables' FORWARD to drop, and a drop anywhere is final.

    def _open(self) -> None:
        chain = self._open_chain()
        if chain is None:
            return
        # Behind what the administrator wrote there, so his rules go first; but before a final `return`.
        returns = [
            line for line in _lines(chain) if line.split(" comment ")[0].split(" #")[0].endswith("return")
        ]
        last = _lines(chain)[-1:] == returns[-1:] and returns
        place = (
            f"insert rule ip filter {chain} position {returns[-1].rpartition('# handle ')[2]}" if last else ""
        )
        for rule in rules.foreign(self.table):
            nft.run(f"{place or f'add rule ip filter {chain}'} {rule}")

    def _open_chain(self) -> str | None:
        """The chain of `ip filter` that still lacks our accepts; None when nothing drops or they are there."""
        forward = _lines("FORWARD", policy=True)
        if not any("policy drop" in line for line in forward):
            return None
        chain = "DOCKER-USER" if any("jump DOCKER-USER" in line for line in forward) else "FORWARD"
        return None if any(f'"{self.table}*"' in line for line in _lines(chain)) else chain


def _tolerant(command: str) -> None:
    """Delete an element that may be gone already."""
    try:
        nft.run(command)
    except nft.NftError as error:
        # ENOENT; the check of interval sets in userspace has words of its own for it.
        if "No such file" not in error.message and "does not exist" not in error.message:
            raise


def _lines(chain: str, *, policy: bool = False) -> list[str]:
    """The rules of a chain of iptables' filter table, with their handles; none when there is no such chain."""
    try:
        text = nft.run(f"list chain ip filter {chain}", handles=True)
    except nft.NftError:
        return []
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if "# handle " in line and not line.startswith(("table", "chain"))] + (
        [line for line in lines if "policy" in line] if policy else []
    )


class Firewall:
    """The rules of one store on this host."""

    def __init__(self, key: str, records: NetworkRecords, backend: Backend | None = None) -> None:
        self.table = f"pipe-{key}"
        self._records = records
        self._backend = backend

    @property
    def backend(self) -> Backend:
        if self._backend is None:
            self._backend = backend_for(self.table)
        return self._backend

    def ensure(self, ports: Callable[[], Iterable[Port]]) -> None:
        """All rules of all networks are there afterwards; 0.1 ms when nothing happened since the last time."""
        mark = generation()
        if mark and self._records.mark(host.identity()) == f"{self.table} {mark}":
            return
        with host.lock():
            for _ in range(5):
                mark = generation()  # before the look: a change during it is then noticed the next time
                with Netlink() as netlink:
                    uplinks = host.bridge_uplinks(netlink)
                if self.backend.complete(uplinks):
                    self._records.set_mark(host.identity(), f"{self.table} {mark}")
                    return
                self.backend.install(self._records.all(), ports(), uplinks)
        raise HostFault(
            "the packet filter rules of pipe's networks disappear as soon as they are made",
            hint="another program keeps removing them; see `nft monitor`",
        )

    def include(self, network: Network, ports: Callable[[], Iterable[Port]]) -> None:
        """A network's part of the rules; no harm when it is there already."""
        try:
            self.change(lambda backend: backend.add_network(network))
        except HostFault:
            # Remains of a network that was killed while it went (overlapping elements): begin anew.
            with Netlink() as netlink:
                uplinks = host.bridge_uplinks(netlink)
            self.backend.install(self._records.all(), ports(), uplinks)

    def change(self, action: Callable[[Backend], None]) -> None:
        """A change of our own; the mark follows it, unless somebody else changed something meanwhile."""
        before = generation()
        known = self._records.mark(host.identity()) == f"{self.table} {before}"
        action(self.backend)
        after = generation()
        if known and after == before + 1:
            self._records.set_mark(host.identity(), f"{self.table} {after}")

    def remove(self) -> None:
        with host.lock():
            self.backend.remove()


def generation() -> int:
    """How often this namespace's nftables rule set was changed; 0 when the kernel has none."""
    try:
        with Netlink(_NETLINK_NETFILTER) as netlink:
            answers = netlink.query("nftables generation", _GETGEN, bytes(4))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT):
            return 0
        raise
    return int(struct.unpack("!I", attributes(answers[0], 4)[1])[0])


def backend_for(table: str) -> Backend:
    """What this host filters packets with."""
    if not nft.available():
        from runtime.networks.iptables import Iptables

        return Iptables(table)
    return Nft(table)
