"""What the routes work on: the rooms of one store, and rooms of their own for what takes long.

A request that only looks uses the daemon's own store object within `passing` leases. One that pulls, pushes, loads or
builds gets a store object of its own: its leases, also those of its threads, end with it, and what it tells goes to
its client alone, and to whoever listens to `/events`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.daemon.host import HostFacts
from runtime.events import Changed, Emit, Event, ignore
from runtime.images.images import Images
from runtime.store import Store

if TYPE_CHECKING:
    from registry_client.credentials import Credentials
    from runtime.containers.containers import Containers
    from runtime.daemon.happened import Happened
    from runtime.images.transport import RegistryTransport
    from runtime.networks.networks import Networks
    from runtime.volumes import Volumes


@frozen(kw_only=True)
class Engine:
    """`transport` makes a way to registries with the logins a client sent; None are the daemon's own."""

    id: str
    facts: HostFacts
    store: Store
    snapshots: str
    images: Images
    containers: Containers
    networks: Networks
    volumes: Volumes
    happened: Happened
    transport: Callable[[Credentials | None, Emit], RegistryTransport]
    cancel: Cancel
    insecure: tuple[str, ...] = ()

    @contextmanager
    def working(self, credentials: Credentials | None = None, emit: Emit = ignore) -> Iterator[Images]:
        """Images on a store object of its own; it speaks to registries with these logins."""

        def tell(event: Event) -> None:
            if isinstance(event, Changed):
                self.happened.note(event)
            emit(event)

        transport = self.transport(credentials, tell)
        try:
            with Store.open(self.store.root, snapshots=self.snapshots) as store:
                yield Images(store, transport, tell)
        finally:
            transport.close()
