"""Lead ports of the host to containers: rows in the database, elements in the packet filter, sockets that hold them."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterable

from registry_client.values import replace
from runtime.containers.spec import PortBinding
from runtime.errors import InvalidInput
from runtime.networks import conntrack, ports
from runtime.networks.firewall import Firewall
from runtime.networks.records import NetworkRecords
from runtime.networks.rules import ANYWHERE, Port
from runtime.networks.values import Endpoint, Network


class Publisher:
    def __init__(self, records: NetworkRecords, firewall: Firewall) -> None:
        self._records, self._firewall = records, firewall
        self._held: dict[str, list[socket.socket]] = {}

    def close(self) -> None:
        """Let go of the ports this process holds itself."""
        for container in tuple(self._held):
            self.let_go(container)

    def let_go(self, container_id: str) -> None:
        """Close this process's sockets of a container; whoever else has them keeps the ports."""
        ports.release(self._held.pop(container_id, ()))

    def withdraw(self, endpoint: Endpoint) -> None:
        """Take an endpoint's ports out of the packet filter; the caller's transaction then drops the rows."""
        if published := self.rules(endpoint.id):
            self._firewall.change(lambda backend: backend.remove_ports(published))
            conntrack.forget(self._of(endpoint))

    def publish(
        self, container_id: str, endpoint: Endpoint, bindings: Iterable[PortBinding]
    ) -> tuple[PortBinding, ...]:
        """Lead ports of the host to a container; which ones in the end. They stay held by this process, see `held`."""
        wanted = [ports.check(self._default_ip(endpoint.network, binding)) for binding in bindings]
        if not wanted:
            return ()
        if endpoint.network.internal:
            raise InvalidInput(
                f"cannot publish ports of a container on the internal network {endpoint.network.name}"
            )
        chosen: list[PortBinding] = []
        sockets: list[socket.socket] = []
        try:
            with self._records.db.transaction() as connection:
                taken = self._taken()
                # Fixed ones first, so that a random one does not sit down on them.
                for binding in sorted(wanted, key=lambda binding: binding.host_port == 0):
                    final, held = ports.choose(binding, [*taken, *chosen])
                    chosen.append(final)
                    sockets.append(held)
                    connection.execute(
                        "INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            final.protocol,
                            final.host_ip,
                            final.host_port,
                            endpoint.id,
                            container_id,
                            endpoint.address,
                            final.container_port,
                        ),
                    )
            published = self.rules(endpoint.id)
            self._firewall.change(lambda backend: backend.add_ports(published))
            conntrack.forget(chosen)
        except BaseException:
            ports.release(sockets)
            raise
        self._held.setdefault(container_id, []).extend(sockets)
        return tuple(chosen)

    def _default_ip(self, network: Network, binding: PortBinding) -> PortBinding:
        """The network's `host-binding` for a port that names no address; 0.0.0.0 is what the command line makes of none."""
        unnamed = binding.host_ip in ("", ANYWHERE)
        return replace(binding, host_ip=network.host_ip) if network.host_ip and unnamed else binding

    def held(self, container_id: str) -> tuple[int, ...]:
        """The sockets that keep a container's published ports from others: descriptors to hand to who outlives us."""
        return tuple(held.fileno() for held in self._held.get(container_id, ()))

    def published(self, container_id: str) -> tuple[PortBinding, ...]:
        """The ports of the host that lead to a container."""
        rows = self._records.db.read(
            "SELECT * FROM ports WHERE container = ? ORDER BY container_port, protocol, host_ip",
            (container_id,),
        )
        return tuple(_binding(row) for row in rows)

    def _of(self, endpoint: Endpoint) -> tuple[PortBinding, ...]:
        rows = self._records.db.read("SELECT * FROM ports WHERE endpoint = ?", (endpoint.id,))
        return tuple(_binding(row) for row in rows)

    def _taken(self) -> tuple[PortBinding, ...]:
        return tuple(_binding(row) for row in self._records.db.read("SELECT * FROM ports"))

    def rules(self, endpoint: str = "") -> tuple[Port, ...]:
        rows = self._records.db.read("SELECT * FROM ports WHERE ? IN ('', endpoint)", (endpoint,))
        return tuple(
            Port(
                protocol=row["protocol"],
                host_ip=row["host_ip"],
                host_port=row["host_port"],
                address=row["address"],
                container_port=row["container_port"],
            )
            for row in rows
        )


def _binding(row: sqlite3.Row) -> PortBinding:
    return PortBinding(
        container_port=int(row["container_port"]),
        protocol=str(row["protocol"]),
        host_port=int(row["host_port"]),
        host_ip=str(row["host_ip"]),
    )
