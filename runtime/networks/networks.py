"""The networks of one store: make them, give containers their endpoints, publish ports, clean up after the dead.

The database decides, the kernel follows. A row is written before what it stands for exists and deleted after it is gone,
and every endpoint belongs to a living process; so whatever a killed process left is found by `sweep`. Bridges and rules
are made once and stay until the network is removed; a container costs one pair of veth.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from registry_client.values import replace
from runtime import events
from runtime.containers.spec import NetworkAttachment, PortBinding
from runtime.errors import Conflict, InvalidInput, NotFound
from runtime.linux.netlink import Link, Netlink, configure_interface
from runtime.networks import bridges, definition, host
from runtime.networks.addresses import POOLS, Range, check_mac, number
from runtime.networks.firewall import Firewall
from runtime.networks.publishing import Publisher
from runtime.networks.reclaim import reclaim
from runtime.networks.records import NetworkRecords, now
from runtime.networks.values import HOST, NONE, Endpoint, Network
from runtime.sandbox import netns
from runtime.store.owners import is_alive, own_token

if TYPE_CHECKING:
    from runtime.networks.pool import NetnsPool
    from runtime.networks.resolver import Resolver
    from runtime.store.store import Store


class Networks:
    """All that has to do with networks, for one store on this host. Usable from several threads."""

    def __init__(
        self, store: Store, emit: events.Emit = events.ignore, *, pools: Iterable[tuple[Range, int]] = POOLS
    ) -> None:
        self.root = os.path.realpath(store.root)
        self.key = hashlib.sha256(self.root.encode()).hexdigest()[:6]
        self.records = NetworkRecords(store.db)
        self.firewall = Firewall(self.key, self.records)
        self._pools = tuple(pools)
        self._emit = emit
        self._publisher = Publisher(self.records, self.firewall)

    def close(self) -> None:
        """Let go of the ports this process still holds itself."""
        self._publisher.close()

    # --- networks

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: str = "",
        gateway: str = "",
        ip_range: str = "",
        internal: bool = False,
        labels: Mapping[str, str] = {},
        options: Mapping[str, str] = {},
        reserved: Mapping[str, str] = {},
    ) -> Network:
        """A new network with its bridge; `Conflict` when the name or the range is taken."""
        definition.check_name(name)
        definition.check_driver(driver)
        draft = definition.with_options(
            Network(
                id=os.urandom(32).hex(),
                name=name,
                internal=internal,
                labels=dict(labels),
                reserved=dict(reserved),
                created=now(),
            ),
            options,
        )
        with host.lock(), Netlink() as netlink:
            reclaim(netlink)
            with self.records.db.transaction(durable=True):
                if self.records.db.one("SELECT 1 FROM networks WHERE name = ?", (name,)):
                    raise Conflict(f"network {name!r} already exists")
                if not definition.names_mtu(options):
                    draft = replace(draft, mtu=host.uplink_mtu(netlink))
                placed = definition.place(
                    draft,
                    subnet,
                    gateway,
                    ip_range,
                    others=self.records.all(),
                    occupied=host.occupied(netlink),
                    pools=self._pools,
                )
                network = replace(placed, device=self._device(name))
                self.records.add(network)
            try:
                self._raise(netlink, network)
            except BaseException:
                self.records.remove(network)
                raise
        self._tell("network", network.id, "create", network)
        return network

    def _raise(self, netlink: Netlink, network: Network) -> Link:
        """Rules first, the bridge last: once it is up, all that belongs to it is there."""
        with host.lock(), host.faults(f"cannot set up network {network.name}"):
            self._ensure_rules()
            self.firewall.include(network, self._publisher.rules)
            return bridges.make_bridge(netlink, network, self.root)

    def _device(self, name: str) -> str:
        """Names of at most 15 bytes that begin alike for all of a store: `rules` match them with a wildcard."""
        if name == "bridge":
            return f"pipe-{self.key}"
        used = {network.device for network in self.records.all()}
        return next(device for n in range(1, 1000) if (device := f"pipe-{self.key}-{n}") not in used)

    def ensure_default(self) -> Network:
        """The network `bridge`, made when first needed."""
        found = self.records.find("bridge")
        if found is None:
            try:
                found = self.create("bridge")
            except Conflict:
                found = self.records.find("bridge")  # another process was quicker
                if found is None:
                    raise
        return found

    def get(self, name: str) -> Network:
        return self.ensure_default() if name == "bridge" else self.records.get(name)

    def list(self) -> tuple[Network, ...]:
        """Those in the database, and the two every host has."""
        return (*self.records.all(), HOST, NONE)

    def endpoints(self, *, container: str = "", network: str = "") -> tuple[Endpoint, ...]:
        """Who is connected: of a container (its id), of a network (its id), or all."""
        return tuple(self.records.endpoints(container=container, network=network))

    def remove(self, name: str) -> Network:
        """Remove a network nobody is on."""
        if name in ("bridge", "host", "none"):
            raise Conflict(f"{name} is a predefined network and cannot be removed")
        network = self.records.get(name)
        if network.driver != "bridge" or network.name == "bridge":
            raise Conflict(f"{network.name} is a predefined network and cannot be removed")
        self.sweep()
        self._remove(network)
        self._tell("network", network.id, "destroy", network)
        return network

    def _remove(self, network: Network) -> None:
        with self.records.db.transaction():  # keeps others from connecting while it is taken apart
            users = self.records.endpoints(network=network.id)
            if users:
                names = ", ".join(sorted(user.container_name for user in users))
                raise Conflict(
                    f"network {network.name} is in use by {names}", hint="stop or disconnect them first"
                )
            self.firewall.change(lambda backend: backend.remove_network(network))
            with Netlink() as netlink:
                bridges.remove_bridge(netlink, network.device)
            self.records.remove(network)

    def prune(self) -> tuple[str, ...]:
        """Remove all user-made networks nobody is on; their names."""
        self.sweep()
        removed = []
        for network in self.records.all():
            if network.name == "bridge" or self.records.endpoints(network=network.id):
                continue
            try:
                self._remove(network)
            except Conflict:
                continue  # somebody connected meanwhile
            removed.append(network.name)
            self._tell("network", network.id, "destroy", network)
        return tuple(removed)

    def teardown(self) -> None:
        """Everything of this store off this host: links, rules, rows."""
        self.close()
        with host.lock(), self.records.db.transaction() as connection, Netlink() as netlink:
            for network in self.records.all():
                bridges.remove_bridge(netlink, network.device)
            self.firewall.remove()
            for table in ("ports", "endpoints", "networks", "firewall_marks"):
                connection.execute(f"DELETE FROM {table}")

    # --- endpoints

    def connect(
        self,
        container_id: str,
        container_name: str,
        attachment: NetworkAttachment,
        aliases: Iterable[str] = (),
        *,
        owner: str = "",
    ) -> Endpoint:
        """Reserve a container's address and names on a network; the same ones again when they are reserved already.

        The reservation lives as long as this process (or the one behind the token `owner`), and from `attach` on as
        long as the container's init.
        """
        network = self.get(attachment.network)
        if network.driver != "bridge":
            raise InvalidInput(f"a container cannot be connected to the {network.name} network")
        network = self._settle(network)
        mac = check_mac(attachment.mac) if attachment.mac else ""
        identity = os.urandom(16).hex()
        return self.records.reserve(
            network,
            container_id,
            container_name,
            identity=identity,
            device=f"pv{self.key}{identity[:7]}",
            owner=owner or own_token(),
            names=(container_name, container_id[:12], *attachment.aliases, *aliases),
            address=number(attachment.ipv4) if attachment.ipv4 else 0,
            mac=mac,
        )

    def attach(self, endpoint: Endpoint, pid: int) -> dict[str, str | int]:
        """A cable into the network namespace of a container's (paused) init; the `interfaces` entry to configure it by."""
        with Netlink() as netlink:
            bridges.plug(netlink, self._ready(netlink, endpoint.network), endpoint, pid=pid)
        self.records.own(endpoint, host.token_of(pid))
        self._tell(
            "network", endpoint.network.id, "connect", endpoint.network, container=endpoint.container_id
        )
        return endpoint.entry()

    def attach_running(self, endpoint: Endpoint, pid: int) -> None:
        """`attach` to a container that is running already, and configure the interface inside."""
        entry = self.attach(endpoint, pid)
        with host.faults(f"cannot configure {endpoint.interface} of {endpoint.container_name}"):
            netns.inside_of(pid, lambda: configure_interface(**entry))  # type: ignore[arg-type]

    def attach_namespace(self, endpoint: Endpoint, namespace: int) -> None:
        """A configured interface in a namespace that a descriptor holds; the endpoint stays this process's."""
        with Netlink() as netlink:
            bridges.plug(netlink, self._ready(netlink, endpoint.network), endpoint, namespace=namespace)
        entry = endpoint.entry()
        with host.faults(f"cannot configure {endpoint.interface} of {endpoint.container_name}"):
            netns.inside(namespace, lambda: configure_interface(**entry))  # type: ignore[arg-type]

    def _ready(self, netlink: Netlink, network: Network) -> Link:
        """The network's bridge, after a look that it and the rules are still there (a reboot, a firewall's reload)."""
        bridge = bridges.find_bridge(netlink, network, self.root)
        if bridge is None:
            return self._raise(netlink, network)
        self._ensure_rules()
        return bridge

    def _settle(self, network: Network) -> Network:
        """The network, moved to another range if the host got a route into its own while it was down (a VPN, a store beside)."""
        with Netlink() as netlink:
            if bridges.find_bridge(netlink, network, self.root) is not None:
                return network
            with host.lock():
                if bridges.find_bridge(netlink, network, self.root) is not None:
                    return network  # whoever had the lock before us made it
                # What may be there is half made, or of an earlier store at this path.
                bridges.remove_bridge(netlink, network.device)
                reclaim(netlink)
                occupied = host.occupied(netlink)
                if any(network.subnet.overlaps(taken) for taken in occupied):
                    network = self._move(network, occupied)
                self._raise(netlink, network)
        return network

    def _move(self, network: Network, occupied: Collection[Range]) -> Network:
        with self.records.db.transaction():
            if not network.automatic or self.records.endpoints(network=network.id):
                raise Conflict(
                    f"range {network.subnet} of network {network.name} is in use on this host by now",
                    hint="`ip route` shows by what; remove the network and make it anew",
                )
            others = [other for other in self.records.all() if other.id != network.id]
            moved = definition.place(network, "", "", "", others=others, occupied=occupied, pools=self._pools)
            self.firewall.change(lambda backend: backend.remove_network(network))
            self.records.move(moved)
        return moved

    def _ensure_rules(self) -> None:
        if host.switch("ipv4/ip_forward", "1"):
            message = "enabled net.ipv4.ip_forward: without it containers reach nothing outside"
            self._emit(events.Warned(node="networks", message=message))
        self.firewall.ensure(self._publisher.rules)

    def disconnect(self, container_id: str, network_name: str, pid: int = 0) -> None:
        """Take a container off a network; with `pid`, a running one keeps a default route if it has another network."""
        network = self.records.get(network_name)
        mine = self.records.endpoints(container=container_id)
        gone = next((endpoint for endpoint in mine if endpoint.network.id == network.id), None)
        if gone is None:
            raise NotFound(f"container {container_id[:12]} is not connected to network {network.name}")
        self._withdraw([gone])
        if gone.default_route:
            heir = next((other for other in mine if other is not gone and not other.network.internal), None)
            if heir is not None:
                self._inherit(heir, pid)
        self._tell("network", network.id, "disconnect", network, container=container_id)

    def _inherit(self, heir: Endpoint, pid: int) -> None:
        with self.records.db.transaction() as connection:
            connection.execute("UPDATE endpoints SET default_route = 1 WHERE id = ?", (heir.id,))
        if pid:
            entry = replace(heir, default_route=True).entry()
            netns.inside_of(pid, lambda: configure_interface(**entry))  # type: ignore[arg-type]

    def release(self, container_id: str) -> None:
        """Give back all a container has here: interfaces, addresses, names, ports. Again is no error."""
        self._publisher.let_go(container_id)
        self._withdraw(self.records.endpoints(container=container_id))

    def _withdraw(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            # Within the transaction: nobody can publish the port anew between the rule's end and the row's.
            with self.records.db.transaction() as connection:
                self._publisher.withdraw(endpoint)
                owner = self.records.owner(endpoint)
                connection.execute("DELETE FROM endpoints WHERE id = ?", (endpoint.id,))
            if owner != own_token() and is_alive(owner):
                # Otherwise the cable goes with its namespace; to wait for the kernel here costs 30 ms.
                with Netlink() as netlink:
                    bridges.remove_link(netlink, endpoint.device)

    def sweep(self) -> None:
        """Give back what the dead left: containers whose init is gone, processes killed between two steps."""
        for container in {container for container, owner in self.records.owners() if not is_alive(owner)}:
            endpoints = self.records.endpoints(container=container)
            self._withdraw([each for each in endpoints if not is_alive(self.records.owner(each))])

    # --- ports

    def publish(
        self, container_id: str, endpoint: Endpoint, bindings: Iterable[PortBinding]
    ) -> tuple[PortBinding, ...]:
        """Lead ports of the host to a container; which ones in the end. They stay held by this process, see `held`."""
        return self._publisher.publish(container_id, endpoint, bindings)

    def held(self, container_id: str) -> tuple[int, ...]:
        """The sockets that keep a container's published ports from others: descriptors to hand to who outlives us."""
        return self._publisher.held(container_id)

    def let_go(self, container_id: str) -> None:
        """Close these sockets here, after somebody else was given them."""
        self._publisher.let_go(container_id)

    def published(self, container_id: str) -> tuple[PortBinding, ...]:
        """The ports of the host that lead to a container."""
        return self._publisher.published(container_id)

    # --- names and namespaces

    def resolver_for(self, container_id: str, pid: int, *, servers: tuple[str, ...] = ()) -> Resolver:
        """The name server of a container, on 127.0.0.11 in its namespace; `start()` it, `close()` it at the end."""
        from runtime.networks.listening import name_server_sockets
        from runtime.networks.resolver import Resolver

        return Resolver(netns.inside_of(pid, name_server_sockets), self.records, container_id, servers)

    def pool(self, size: int = 0) -> NetnsPool:
        """Network namespaces on the default bridge, to be lent to build steps."""
        from runtime.networks.pool import NetnsPool

        return NetnsPool(self)

    def _tell(self, kind: str, identity: str, action: str, network: Network, **more: str) -> None:
        attributes = {"name": network.name, "type": network.driver, **more}
        self._emit(events.Changed(kind=kind, id=identity, action=action, attributes=attributes))
