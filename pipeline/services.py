"""Everything one process works with, opened at first use and closed in reverse.

The one order that matters: the spawner is forked, and the mount namespace made private, while the process still has
one thread (DESIGN.md, Processes and threads). `start` does both; all else is opened when it is first asked for, because
a command pays for every import.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.settings import Settings
from runtime.cancel import Cancel
from runtime.errors import Denied
from runtime.events import Emit, Event, ignore

if TYPE_CHECKING:
    from builder.build import Builder
    from registry_client.credentials import Credentials
    from runtime.containers.containers import Containers
    from runtime.images.images import Images
    from runtime.images.transport import RegistryTransport
    from runtime.networks.networks import Networks
    from runtime.sandbox.spawner import Spawner
    from runtime.store import Store
    from runtime.volumes import Volumes


class Services:
    def __init__(self, settings: Settings, cancel: Cancel | None = None, emit: Emit = ignore) -> None:
        self.settings = settings
        self.cancel = cancel or Cancel()
        self.emit = emit
        self.listeners: list[Emit] = []  # who hears of events beside
        self._stack = ExitStack()
        self._spawner: Spawner | None = None

    def start(self, *, private_mounts: bool) -> None:
        """Fork the spawner; call it before anything that may start a thread."""
        from runtime.sandbox.spawner import Spawner

        self._spawner = self._stack.enter_context(Spawner.start())
        if private_mounts:
            from runtime.sandbox.isolate import private_mounts as isolate

            try:
                isolate(self._spawner)
            except PermissionError as error:
                raise Denied(
                    f"a mount namespace of our own is refused: {error.strerror}",
                    hint="run as root; inside a container, one that is privileged",
                ) from error

    def close(self) -> None:
        self._stack.close()

    def publish(self, event: Event) -> None:
        """Emit through whatever listens now: services are opened before the renderer is."""
        for listen in tuple(self.listeners):
            listen(event)
        self.emit(event)

    @property
    def spawner(self) -> Spawner:
        assert self._spawner is not None, "this command did not ask for containers"
        return self._spawner

    @property
    def spawner_if_any(self) -> Spawner | None:
        """None where nothing can be run: in a process that has threads already."""
        return self._spawner

    @cached_property
    def store(self) -> Store:
        from runtime.store import Store

        store = Store.open(self.settings.root, snapshots=self.settings.snapshots)
        self._stack.callback(store.leave)
        return store

    @cached_property
    def images(self) -> Images:
        from runtime.images.images import Images

        transport = self.transport()
        self._stack.callback(transport.close)
        return Images(self.store, transport, self.publish)

    def transport(
        self, credentials: Credentials | None = None, emit: Emit | None = None
    ) -> RegistryTransport:
        """A way to registries; with the logins of the settings unless others are given. The caller closes it."""
        from runtime.images.transport import RegistryTransport

        return RegistryTransport(
            docker_config=self.settings.docker_config,
            credentials=credentials,
            ca_bundle=self.settings.ca_bundle or None,
            insecure=tuple(filter(None, self.settings.insecure_registries.split(","))),
            emit=emit or self.publish,
        )

    @cached_property
    def networks(self) -> Networks:
        from runtime.networks.networks import Networks

        return Networks(self.store, self.publish)

    @cached_property
    def volumes(self) -> Volumes:
        from runtime.volumes import Volumes

        return Volumes(self.store)

    @cached_property
    def containers(self) -> Containers:
        from runtime.containers.containers import Containers

        # Those who only look, stop or remove have no spawner.
        return Containers(self.store, self.images, self.networks, self.volumes, self._spawner, self.publish)

    @cached_property
    def builder(self) -> Builder:
        from builder.build import Builder

        return Builder(
            self.store,
            self.images,
            lambda: self.networks,
            self.spawner,
            self.publish,
            self.cancel,
            jobs=self.jobs,
        )

    @property
    def jobs(self) -> int:
        import os

        return self.settings.jobs or max(4, os.cpu_count() or 1)
