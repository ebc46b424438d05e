"""Ready network namespaces on the default bridge, for build steps.

Making a namespace with its cable takes milliseconds, so one is used by many steps, by one at a time. A namespace is
held by a descriptor of this process: when it ends, however, the namespaces and their cables are gone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.containers.spec import NetworkAttachment
from runtime.networks import names
from runtime.networks.listening import name_server_sockets
from runtime.sandbox import netns

if TYPE_CHECKING:
    from runtime.networks.networks import Networks
    from runtime.networks.resolver import Resolver


class Namespace:
    """One of the pool's. `path` can be opened by any process of this host while the pool lives."""

    __slots__ = ("address", "container_id", "descriptor", "gateway", "path", "resolver")

    def __init__(
        self, descriptor: int, container_id: str, address: str, gateway: str, resolver: Resolver | None
    ) -> None:
        self.descriptor, self.container_id = descriptor, container_id
        self.address, self.gateway, self.resolver = address, gateway, resolver
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"


class NetnsPool:
    """Grows as steps run in parallel; a context manager."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._idle: list[Namespace] = []
        self._all: list[Namespace] = []
        self._lock = threading.Condition()
        self._coming = 0  # being prepared
        self._waiting = 0  # for one of those
        host_text = names.read_host_resolv_conf()
        self._embedded = names.needs_resolver(False, host_text)
        self.resolv_conf = names.resolv_conf(host_text, embedded=self._embedded)

    def __enter__(self) -> NetnsPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Have one ready before it is needed; who needs one meanwhile waits for it."""
        with self._lock:
            self._coming += 1
        namespace = None
        try:
            namespace = self._make()
        finally:
            with self._lock:
                self._coming -= 1
                if namespace is not None:
                    self._idle.append(namespace)
                self._lock.notify_all()

    @contextmanager
    def lend(self, *, spoiled: bool = False) -> Iterator[Namespace]:
        """One namespace for one step. `spoiled`: the step may change it (privileged), so nobody gets it afterwards."""
        with self._lock:
            # Making one more at the same time would take longer: both want the same locks of the kernel and the database.
            while not self._idle and self._coming > self._waiting:
                self._waiting += 1
                self._lock.wait()
                self._waiting -= 1
            namespace = self._idle.pop() if self._idle else None
        namespace = namespace or self._make()
        try:
            yield namespace
        finally:
            if spoiled:
                self._destroy(namespace)
            else:
                with self._lock:
                    self._idle.append(namespace)

    def _make(self) -> Namespace:
        networks = self._networks
        identity = os.urandom(32).hex()
        networks.ensure_default()
        descriptor = netns.new()
        resolver = None
        try:
            endpoint = networks.connect(
                identity, f"build-{identity[:12]}", NetworkAttachment(network="bridge")
            )
            networks.attach_namespace(endpoint, descriptor)
            if self._embedded:
                from runtime.networks.resolver import Resolver

                sockets = netns.inside(descriptor, name_server_sockets)
                resolver = Resolver(sockets, networks.records, identity)
                resolver.start()
        except BaseException:
            os.close(descriptor)
            networks.release(identity)
            raise
        namespace = Namespace(descriptor, identity, endpoint.address, endpoint.gateway, resolver)
        with self._lock:
            self._all.append(namespace)
        return namespace

    def _destroy(self, namespace: Namespace) -> None:
        with self._lock:
            self._all.remove(namespace)
        if namespace.resolver is not None:
            namespace.resolver.close()
        os.close(namespace.descriptor)
        self._networks.release(namespace.container_id)

    def close(self) -> None:
        """Take all of them down."""
        with self._lock:
            everything = list(self._all)
            self._idle.clear()
        for namespace in everything:
            self._destroy(namespace)
