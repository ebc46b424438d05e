"""Connect a container to a further network, and take it off one, also while it runs.

What is asked for is kept in its spec, so the next start finds it there. A running one gets the interface at once, the new
address in its /etc/hosts, and a name server if this is its first network with names.
"""

from __future__ import annotations

import os

from registry_client.values import replace
from runtime.containers.config import hostname_of
from runtime.containers.container import Container
from runtime.containers.files import needs_resolver
from runtime.containers.records import ContainerRecords
from runtime.containers.serving import serve_names
from runtime.containers.spec import ContainerSpec, NetworkAttachment
from runtime.errors import Conflict, NotFound
from runtime.networks import Endpoint, Networks, names
from runtime.sandbox.spawner import Spawner
from runtime.store.store import Store


class Connecting:
    def __init__(self, store: Store, networks: Networks, spawner: Spawner) -> None:
        self._store, self._networks, self._spawner = store, networks, spawner
        self._records = ContainerRecords(store)

    def connect(self, name: str, attachment: NetworkAttachment) -> None:
        """Put a container on a network; Conflict when it is there already or shares somebody else's."""
        container = _own_network(self._records.get(name))
        network = self._networks.get(attachment.network)
        before = _attachments(container.spec)
        if any(self._networks.get(each.network).id == network.id for each in before):
            raise Conflict(f"container {container.name} is on network {network.name} already")
        if container.running:
            self._plug(container, attachment)
        spec = replace(container.spec, network_mode="", networks=(*before, attachment))
        self._records.respec(container.id, spec)

    def _plug(self, container: Container, attachment: NetworkAttachment) -> None:
        before = self._networks.endpoints(container=container.id)
        endpoint = self._networks.connect(container.id, container.name, attachment)
        try:
            self._networks.attach_running(endpoint, container.state.pid)
            if needs_resolver(container, [*before, endpoint]) and not needs_resolver(container, before):
                shim = int(container.state.shim.split(".")[2])
                serve_names(self._spawner, self._store.root, container, container.state.pid, shim)
                self._write_resolv_conf(container)
        except BaseException:
            self._networks.disconnect(container.id, endpoint.network.id)
            raise
        self._add_host(container, endpoint)

    def _write_resolv_conf(self, container: Container) -> None:
        spec = container.spec
        text = names.resolv_conf(
            names.read_host_resolv_conf(),
            embedded=True,
            search=spec.dns_search or None,
            options=spec.dns_options,
        )
        _overwrite(os.path.join(container.directory, "resolv.conf"), text)

    def _add_host(self, container: Container, endpoint: Endpoint) -> None:
        with open(os.path.join(container.directory, "hosts"), "a", encoding="utf-8") as file:
            file.write(f"{endpoint.address}\t{hostname_of(container.spec, container.id)}\n")

    def disconnect(self, name: str, network_name: str) -> None:
        """Take a container off a network."""
        container = _own_network(self._records.get(name))
        network = self._networks.get(network_name)
        before = _attachments(container.spec)
        left = tuple(each for each in before if self._networks.get(each.network).id != network.id)
        if left == before:
            raise NotFound(f"container {container.name} is not on network {network.name}")
        if container.running:
            self._unplug(container, network.id)
        mode = "" if left else "none"
        self._records.respec(container.id, replace(container.spec, network_mode=mode, networks=left))

    def _unplug(self, container: Container, network_id: str) -> None:
        mine = self._networks.endpoints(container=container.id, network=network_id)
        self._networks.disconnect(container.id, network_id, container.state.pid)
        path = os.path.join(container.directory, "hosts")
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
        gone = {endpoint.address for endpoint in mine}
        _overwrite(path, "".join(line for line in lines if line.split()[:1] != [*gone]))


def _overwrite(path: str, text: str) -> None:
    """In place: the file is bound into the container, a new one under its name would not be."""
    with open(path, "r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()


def _attachments(spec: ContainerSpec) -> tuple[NetworkAttachment, ...]:
    if spec.network_mode == "none":
        return ()
    return spec.networks or (NetworkAttachment(network="bridge"),)


def _own_network(container: Container) -> Container:
    mode = container.spec.network_mode
    if mode == "host" or mode.startswith("container:"):
        raise Conflict(f"container {container.name} has no network of its own (--network {mode})")
    return container
