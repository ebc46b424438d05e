"""The containers of one store: the room's entry. What each verb does in detail lives in the module named after it.

Nothing is kept in this process: every call reads the database and the container's directory and talks to its shim, so
any number of processes work on the same containers at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from runtime.containers.client import Connection, ShimGone
from runtime.containers.container import Container
from runtime.containers.names import check_name
from runtime.containers.records import ContainerRecords
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus
from runtime.containers.state import await_shim_end
from runtime.errors import Conflict, HostFault, TimedOut
from runtime.events import Changed, Emit, Warned, ignore
from runtime.store.owners import own_token
from runtime.store.store import Store

if TYPE_CHECKING:
    from runtime.cancel import Cancel
    from runtime.cgroups import Usage
    from runtime.containers.logfile import LogLine
    from runtime.images.images import Images
    from runtime.networks.networks import Networks
    from runtime.sandbox.spawner import Spawner
    from runtime.volumes import Volumes

OUTPUT = ("stdout", "stderr")
_PATIENCE = 10.0


class Containers:
    """`spawner` is needed only to start containers: those who look, stop or remove may do without."""

    def __init__(
        self,
        store: Store,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        spawner: Spawner | None = None,
        emit: Emit = ignore,
    ) -> None:
        self.store, self.images, self.networks, self.volumes = store, images, networks, volumes
        self.spawner, self.emit = spawner, emit
        self.records = ContainerRecords(store)
        self.told_of_copies = False

    # --- finding ------------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Container:
        """By name, id or unique beginning of an id."""
        return self.records.get(name)

    def find(self, name: str) -> Container | None:
        return self.records.find(name)

    def list(
        self, *, everything: bool = False, filters: Sequence[tuple[str, str]] = ()
    ) -> Sequence[Container]:
        """Running ones, or all; newest first. Filters are Docker's (`status`, `label`, `name` …)."""
        from runtime.containers.listing import matches

        return [
            container
            for container in self.records.all()
            if (everything or container.running or any(name == "status" for name, _ in filters))
            and matches(container, filters, self.records)
        ]

    # --- creating -----------------------------------------------------------------------------------------------------

    def create(
        self,
        spec: ContainerSpec,
        *,
        pull: str = "missing",
        cancel: Cancel | None = None,
        start_follows: bool = False,
    ) -> Container:
        """Make a container. With `start_follows` it is ours until `start`: if we are killed before, it goes."""
        from runtime.containers.creating import create

        container = create(self, spec, pull=pull, cancel=cancel, creator=own_token() if start_follows else "")
        self._tell(container, "create")
        return container

    def rename(self, name: str, new: str) -> None:
        container = self.get(name)
        self.records.rename(container.id, check_name(new))
        self._tell(container, "rename", oldName=container.name)

    # --- running ------------------------------------------------------------------------------------------------------

    def start(self, name: str, *, attach: Sequence[str] = (), keep: bool = False) -> Connection | None:
        """Start it. With `attach` (of stdin, stdout, stderr) the connection carries the streams from the first byte.

        With `keep` there is a connection without them too: it tells of the end, also of one that comes at once.
        Starting a running container does nothing and gives None.
        """
        from runtime.containers.starting import Starting

        container = self.get(name)
        if container.running:
            return self.attach(name, attach) if attach else None
        if self.spawner is None:
            raise HostFault("this process cannot start containers")
        self._tell_of_copies(container)
        starting = Starting(self.store, self.networks, self.spawner, container, self.get)
        try:
            connection = starting.start(attach=tuple(attach))
        except BaseException:
            if (
                container.spec.auto_remove and self.find(container.id) is not None
            ):  # else its shim was quicker
                self.remove(container.id, force=True, volumes=True)
            raise
        finally:
            self.records.started(container.id)
        self._tell(container, "start")
        if attach or keep or container.spec.owner_bound:
            return connection
        connection.close()
        return None

    def _tell_of_copies(self, container: Container) -> None:
        reason = self.store.snapshots.copied_because
        if reason and not self.told_of_copies:
            self.told_of_copies = True
            message = f"roots of containers are copied, which is slower: {reason}"
            self.emit(Warned(node=container.name, message=message))

    def finish(self, name: str, connection: Connection | None = None) -> None:
        """Its end was seen on the connection that started it: clean up here, which is quicker than by the shim."""
        from runtime.containers.after import remove_container

        container = self.find(name)
        if container is not None:
            self.networks.release(container.id)
            if container.spec.auto_remove:
                remove_container(self.store, self.volumes, container.id, volumes_too=True)
                self._tell(container, "destroy")
        if connection is not None:
            try:
                connection.send(op="done")
            except ShimGone:
                pass
            connection.close()

    def attach(self, name: str, streams: Sequence[str] = ("stdin", *OUTPUT)) -> Connection:
        """A connection to the streams of a running container."""
        container, connection = self._connected(name)
        if connection is None:
            raise Conflict(f"container {container.name} is not running", hint="`pipe start` starts it")
        connection.attach(streams)
        return connection

    def stop(self, name: str, timeout: float | None = None, *, signal_name: str = "") -> bool:
        """The stop signal, and after `timeout` seconds (the container's own, -1 waits for ever) SIGKILL; False: it was not running."""
        from runtime.containers.signals import parse_signal
        from runtime.containers.starting import stop_signal

        container, connection = self._connected(name)
        if connection is None:
            return False
        number = parse_signal(signal_name) if signal_name else stop_signal(container)
        patience = container.spec.stop_timeout if timeout is None else timeout
        with connection:
            try:
                connection.send(op="stop", signal=int(number), timeout=patience)
                connection.wait_end()
            except ShimGone:
                pass
        self._settled(container)
        self._tell(container, "stop")
        return True

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal; Conflict when it does not run."""
        container = self._order(name, "kill", signal=int(number))
        self._tell(container, "kill", signal=str(int(number)))

    def restart(self, name: str, timeout: float | None = None) -> None:
        """Stop and start."""
        self.stop(name, timeout)
        self.start(name)
        self._tell(self.get(name), "restart")

    def pause(self, name: str) -> None:
        self._tell(self._order(name, "pause"), "pause")

    def unpause(self, name: str) -> None:
        self._tell(self._order(name, "unpause"), "unpause")

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Tell its terminal a new size."""
        self._order(name, "resize", rows=rows, columns=columns)

    def _order(self, name: str, operation: str, **fields: int) -> Container:
        container, connection = self._connected(name)
        if connection is None:
            raise Conflict(f"container {container.name} is not running")
        with connection:
            try:
                connection.ask(operation, **fields)
            except ShimGone:
                if operation != "kill":
                    raise Conflict(f"container {container.name} is not running") from None
        return container

    def _connected(self, name: str) -> tuple[Container, Connection | None]:
        container = self.get(name)
        return container, Connection.open(container.directory) if container.running else None

    @staticmethod
    def _settled(container: Container) -> None:
        """Wait for the shim to be through with cleaning up: what comes next finds names and addresses free."""
        await_shim_end(container.state, _PATIENCE)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def wait(
        self, name: str, timeout: float | None = None, cancel: Cancel | None = None
    ) -> ExitStatus | None:
        """How it ended, also when it was not yet started; None when it has not within `timeout` seconds."""
        from runtime.containers.waiting import wait

        return wait(self.get(name), timeout, cancel)

    def wait_healthy(self, name: str, timeout: float | None = None) -> str:
        """Until healthy (at once without a health check); StepFailed, TimedOut when that does not come."""
        from runtime.containers.waiting import wait_healthy

        return wait_healthy(self.get(name), timeout)

    def health(self, name: str) -> str:
        """ "", starting, healthy or unhealthy."""
        return self.get(name).health

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container that has ended, with `force` also a running one; `volumes`: its anonymous ones too."""
        from runtime.containers.after import remove_container

        container = self.get(name)
        if container.running:
            if not force:
                raise Conflict(
                    f"container {container.name} is {container.state.status}",
                    hint="stop it first, or use --force",
                )
            self._kill_and_wait(container)
            if self.find(container.id) is None:
                return  # it was to go with its end
        self._clear(container)
        self.networks.release(container.id)
        remove_container(self.store, self.volumes, container.id, volumes_too=volumes)
        self._tell(container, "destroy")

    @staticmethod
    def _clear(container: Container) -> None:
        """The control group of a container whose shim was killed; its own shim leaves none."""
        from runtime import cgroups

        if container.state.started:
            cgroups.remove(container.cgroup)

    def _kill_and_wait(self, container: Container) -> None:
        connection = Connection.open(container.directory)
        if connection is not None:
            with connection:
                try:
                    connection.send(op="stop", signal=int(signal.SIGKILL), timeout=0)
                    connection.wait_end(60.0)
                except ShimGone:
                    pass
        self._settled(container)
        if (left := self.find(container.id)) is not None and left.running:
            raise TimedOut(f"container {container.name} does not end")

    def prune(
        self, *, until: float | None = None, labels: Sequence[tuple[str, str]] = ()
    ) -> tuple[tuple[str, ...], int]:
        """Remove all that do not run; (ids, bytes freed)."""
        from runtime.containers.listing import disk_use, matches

        removed: tuple[str, ...] = ()
        freed = 0
        for container in self.records.all():
            if container.running or (until is not None and container.created > until):
                continue
            if matches(container, [("label", f"{key}={value}") for key, value in labels], self.records):
                freed += disk_use(container)
                self.remove(container.id)
                removed += (container.id,)
        return removed, freed

    def sweep(self) -> Sequence[str]:
        """Put right what dead shims and dead owners left."""
        from runtime.containers.sweep import Sweeper

        return Sweeper(self.store, self.networks, self.volumes).sweep()

    # --- looking inside -----------------------------------------------------------------------------------------------

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        streams: Sequence[str] = OUTPUT,
        cancel: Cancel | None = None,
    ) -> Iterator[LogLine]:
        """Lines of its log, oldest first; with `follow` until it ends."""
        from runtime.containers.logs import read_logs

        return read_logs(
            self.get(name), follow=follow, tail=tail, since=since, until=until, streams=streams, cancel=cancel
        )

    def exec(
        self, name: str, spec: ExecSpec, *, detach: bool = False, size: tuple[int, int] = (0, 0)
    ) -> Connection:
        """Run a further process; the connection carries its streams and then how it ended (`pump`)."""
        from runtime.containers.config import capabilities
        from runtime.containers.execs import start_exec
        from runtime.containers.seccomp import seccomp_program

        container, connection = self._connected(name)
        if connection is None:
            raise Conflict(f"container {container.name} is not running", hint="`pipe start` starts it")
        held = capabilities(container.spec.cap_add, container.spec.cap_drop)
        seccomp = "" if spec.privileged else seccomp_program(self.store.root, container.spec, held)
        return start_exec(container, connection, spec, seccomp=seccomp, detach=detach, size=size)

    def copy_out(self, name: str, path: str, out: BinaryIO, *, follow: bool = False) -> None:
        """Write a tar of what is at `path` to `out`, named from its last component."""
        from runtime.containers.copying import copy_out

        copy_out(self, self.get(name), path, out, follow=follow)

    def copy_in(self, name: str, directory: str, archive: BinaryIO, *, keep_owners: bool = False) -> None:
        """Unpack a tar in a directory of the container."""
        from runtime.containers.copying import copy_in

        copy_in(self, self.get(name), directory, archive, keep_owners=keep_owners)

    def top(self, name: str) -> Sequence[dict[str, str]]:
        """Its processes, as the host sees them."""
        from runtime.containers.listing import processes

        return processes(self._running(name))

    def stats(self, name: str) -> Usage:
        """What it uses now."""
        from runtime import cgroups

        return cgroups.usage(self._running(name).cgroup)

    def changes(self, name: str) -> Sequence[tuple[str, str]]:
        """(A, C or D, path) of what differs from the image."""
        from runtime.containers.listing import changes

        return changes(self.store, self.get(name))

    def _running(self, name: str) -> Container:
        container = self.get(name)
        if not container.state.pid:
            raise Conflict(f"container {container.name} is not running")
        return container

    def _tell(self, container: Container, action: str, **more: str) -> None:
        attributes = {"name": container.name, "image": container.image_name, **more}
        self.emit(Changed(kind="container", id=container.id, action=action, attributes=attributes))
