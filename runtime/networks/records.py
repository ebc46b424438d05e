"""What the database knows about networks and endpoints. No kernel here, and no decision but the ones a transaction must hold."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable

from runtime.errors import Conflict, InvalidInput, NotFound, did_you_mean
from runtime.networks.addresses import choose_address, dotted, mac_of, parse_range
from runtime.networks.values import HOST, NONE, Endpoint, Network
from runtime.store.database import Database


def network_of(row: sqlite3.Row) -> Network:
    return Network(
        id=str(row["id"]),
        name=str(row["name"]),
        driver=str(row["driver"]),
        device=str(row["device"]),
        subnet=parse_range(str(row["subnet"])),
        gateway=int(row["gateway"]),
        ip_range=parse_range(str(row["ip_range"])) if row["ip_range"] else None,
        automatic=bool(row["automatic"]),
        internal=bool(row["internal"]),
        mtu=int(row["mtu"]),
        icc=bool(row["icc"]),
        masquerade=bool(row["masquerade"]),
        host_ip=str(row["host_ip"]),
        labels=json.loads(str(row["labels"])),
        reserved=json.loads(str(row["reserved"])),
        created=float(row["created"]),
    )


class NetworkRecords:
    """The rows of this room."""

    def __init__(self, database: Database) -> None:
        self.db = database

    # --- networks

    def all(self) -> list[Network]:
        return [network_of(row) for row in self.db.read("SELECT * FROM networks ORDER BY created")]

    def find(self, name: str) -> Network | None:
        """By name, id or unique beginning of the id; the name goes first."""
        for predefined in (HOST, NONE):
            if name in (predefined.name, predefined.id, predefined.id[:12]):
                return predefined
        rows = self.db.read("SELECT * FROM networks WHERE name = ? OR id = ?", (name, name))
        if not rows and name and set(name) <= set("0123456789abcdef"):
            rows = self.db.read("SELECT * FROM networks WHERE id LIKE ? || '%'", (name,))
            if len(rows) > 1:
                raise InvalidInput(f"network id {name!r} is ambiguous", hint="give more digits")
        return network_of(rows[0]) if rows else None

    def get(self, name: str) -> Network:
        found = self.find(name)
        if found is None:
            names = [network.name for network in self.all()]
            hint = did_you_mean(name, [*names, "bridge", "host", "none"])
            raise NotFound(f"no such network: {name}", hint=hint or "`pipe network ls` lists them")
        return found

    def add(self, network: Network) -> None:
        """Within the caller's transaction, so that what it looked at is still so."""
        values = (
            network.id,
            network.name,
            network.driver,
            network.device,
            str(network.subnet),
            network.gateway,
            str(network.ip_range or ""),
            network.automatic,
            network.internal,
            network.mtu,
            network.icc,
            network.masquerade,
            network.host_ip,
            json.dumps(dict(network.labels), sort_keys=True),
            json.dumps(dict(network.reserved), sort_keys=True),
            0,
            network.created,
        )
        with self.db.transaction() as connection:
            try:
                connection.execute(f"INSERT INTO networks VALUES ({', '.join('?' * len(values))})", values)
            except sqlite3.IntegrityError as error:
                raise Conflict(f"network {network.name!r} already exists") from error

    def move(self, network: Network) -> None:
        """Store another range and gateway."""
        with self.db.transaction() as connection:
            connection.execute(
                "UPDATE networks SET subnet = ?, gateway = ?, cursor = 0 WHERE id = ?",
                (str(network.subnet), network.gateway, network.id),
            )

    def remove(self, network: Network) -> None:
        with self.db.transaction() as connection:
            connection.execute("DELETE FROM networks WHERE id = ?", (network.id,))

    # --- endpoints

    def endpoints(self, *, container: str = "", network: str = "") -> list[Endpoint]:
        """Those of one container, of one network, or all; in the order they were made."""
        rows = self.db.read(
            "SELECT e.*, group_concat(n.name, ' ') AS names FROM endpoints e"
            " LEFT JOIN endpoint_names n ON n.endpoint = e.id"
            " WHERE (? = '' OR e.container = ?) AND (? = '' OR e.network = ?)"
            " GROUP BY e.id ORDER BY e.container, e.position",
            (container, container, network, network),
        )
        networks = (
            {row["id"]: network_of(row) for row in self.db.read("SELECT * FROM networks")} if rows else {}
        )
        return [_endpoint(row, networks[row["network"]]) for row in rows]

    def reserve(
        self,
        network: Network,
        container: str,
        container_name: str,
        *,
        identity: str,
        device: str,
        owner: str,
        names: Iterable[str],
        address: int = 0,
        mac: str = "",
    ) -> Endpoint:
        """Give a container its address on a network; the one it has already when it is there."""
        with self.db.transaction() as connection:
            mine = self.endpoints(container=container)
            for endpoint in mine:
                if endpoint.network.id == network.id:
                    connection.execute("UPDATE endpoints SET owner = ? WHERE id = ?", (owner, endpoint.id))
                    return endpoint
            row = connection.execute("SELECT cursor FROM networks WHERE id = ?", (network.id,)).fetchone()
            if row is None:
                raise NotFound(f"no such network: {network.name}")
            number = self._address(connection, network, address, row["cursor"])
            positions = {int(endpoint.interface[3:]) for endpoint in mine}
            position = next(n for n in range(len(mine) + 1) if n not in positions)
            routed = not network.internal and not any(endpoint.default_route for endpoint in mine)
            mac = mac or mac_of(number)
            connection.execute(
                "INSERT INTO endpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    identity,
                    network.id,
                    container,
                    container_name,
                    position,
                    number,
                    mac,
                    device,
                    routed,
                    owner,
                ),
            )
            if not address:
                connection.execute("UPDATE networks SET cursor = ? WHERE id = ?", (number, network.id))
            words = tuple(dict.fromkeys(name.lower() for name in names if name))
            connection.executemany(
                "INSERT OR IGNORE INTO endpoint_names VALUES (?, ?, ?)",
                [(network.id, word, identity) for word in words],
            )
        return Endpoint(
            id=identity,
            network=network,
            container_id=container,
            container_name=container_name,
            interface=f"eth{position}",
            address_number=number,
            mac=mac,
            device=device,
            default_route=routed,
            names=words,
        )

    def _address(self, connection: sqlite3.Connection, network: Network, wanted: int, cursor: int) -> int:
        rows = connection.execute(
            "SELECT address, container_name FROM endpoints WHERE network = ?", (network.id,)
        ).fetchall()
        holders = {row["address"]: f"container {row['container_name']}" for row in rows}
        holders[network.gateway] = "the gateway"
        for name, text in network.reserved.items():
            holders[parse_range(f"{text}/32").base] = f"the reserved address {name}"
        if not wanted:
            return choose_address(network.ip_range or network.subnet, network.subnet, holders, cursor)
        if wanted not in network.subnet or wanted in (network.subnet.base, network.subnet.last):
            raise InvalidInput(
                f"address {dotted(wanted)} is not one of network {network.name}",
                hint=f"choose one in {network.subnet}",
            )
        if wanted in holders:
            raise Conflict(f"address {dotted(wanted)} is taken by {holders[wanted]}")
        return wanted

    def own(self, endpoint: Endpoint, owner: str) -> None:
        """From now on the endpoint lives as long as `owner`."""
        with self.db.transaction() as connection:
            connection.execute("UPDATE endpoints SET owner = ? WHERE id = ?", (owner, endpoint.id))

    def owner(self, endpoint: Endpoint) -> str:
        """The token of the process an endpoint lives as long as; "" when it is gone."""
        row = self.db.one("SELECT owner FROM endpoints WHERE id = ?", (endpoint.id,))
        return str(row["owner"]) if row else ""

    def owners(self) -> list[tuple[str, str]]:
        """(container, owner) of every endpoint."""
        return [(row[0], row[1]) for row in self.db.read("SELECT container, owner FROM endpoints")]

    def drop(self, endpoint: Endpoint) -> None:
        with self.db.transaction() as connection:
            connection.execute("DELETE FROM endpoints WHERE id = ?", (endpoint.id,))

    # --- names

    def lookup(self, container: str, name: str) -> list[int]:
        """The addresses `name` stands for on the named networks `container` is on; also as `name.network`."""
        word, dot, network = name.rpartition(".")
        rows = self.db.read(
            "SELECT e.address FROM endpoint_names n JOIN endpoints e ON e.id = n.endpoint"
            " JOIN networks w ON w.id = n.network JOIN endpoints mine ON mine.network = n.network"
            " WHERE mine.container = ? AND w.name != 'bridge'"
            " AND (n.name = ? OR (? != '' AND n.name = ? AND w.name = ?)) ORDER BY e.address",
            (container, name, dot, word, network),
        )
        return list(dict.fromkeys(row["address"] for row in rows))

    def name_of(self, container: str, address: int) -> str:
        """`container.network` of an address on a network `container` is on, or ""."""
        row = self.db.one(
            "SELECT e.container_name, w.name FROM endpoints e JOIN networks w ON w.id = e.network"
            " JOIN endpoints mine ON mine.network = e.network"
            " WHERE mine.container = ? AND w.name != 'bridge' AND e.address = ?",
            (container, address),
        )
        return f"{row[0]}.{row[1]}" if row else ""

    def reaches_outside(self, container: str) -> bool:
        """Whether any of its networks leads outside; one that is on internal networks only must not ask there either."""
        rows = self.db.read(
            "SELECT min(w.internal) FROM endpoints e JOIN networks w ON w.id = e.network WHERE e.container = ?",
            (container,),
        )
        return not rows[0][0]

    # --- the firewall's mark

    def mark(self, host: str) -> str:
        row = self.db.one("SELECT mark FROM firewall_marks WHERE host = ?", (host,))
        return str(row["mark"]) if row else ""

    def set_mark(self, host: str, mark: str) -> None:
        with self.db.transaction() as connection:
            connection.execute("DELETE FROM firewall_marks")
            connection.execute("INSERT INTO firewall_marks VALUES (?, ?)", (host, mark))


def _endpoint(row: sqlite3.Row, network: Network) -> Endpoint:
    return Endpoint(
        id=str(row["id"]),
        network=network,
        container_id=str(row["container"]),
        container_name=str(row["container_name"]),
        interface=f"eth{row['position']}",
        address_number=int(row["address"]),
        mac=str(row["mac"]),
        device=str(row["device"]),
        default_route=bool(row["default_route"]),
        names=tuple(sorted(str(row["names"] or "").split())),
    )


def now() -> float:
    return time.time()
