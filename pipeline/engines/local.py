"""The engine in this process: `runtime.containers` and `builder` behind the pipeline's Protocol. Translates, decides nothing.

A container that is bound to its owner lives as long as the connection that started it: it is held here until the
container has ended or is removed. Output is pumped by one thread per container that is listened to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from pipeline.engines import BuildOrder, BuiltImage, ContainerState, ImageFacts, OnOutput
from runtime.cancel import Cancel
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus, NetworkAttachment
from runtime.errors import Conflict, InvalidInput, NotFound, Unsupported
from runtime.spans import Span

if TYPE_CHECKING:
    from pipeline.services import Services
    from runtime.containers.client import Connection
    from runtime.containers.container import Container

_STREAMS = {1: "stdout", 2: "stderr"}
Pull = Literal["missing", "always", "never"]


class LocalEngine:
    """One per run; `close` lets go of what is still held."""

    def __init__(self, services: Services) -> None:
        # Opened here, on the starting thread, before workers ask for them.
        self._containers, self._images = services.containers, services.images
        self._networks, self._volumes = services.networks, services.volumes
        self._services = services
        self._held: dict[str, Connection] = {}
        self._pumps: dict[str, _Pump] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            held, self._held = self._held, {}
        for connection in held.values():
            connection.close()

    # --- images -------------------------------------------------------------------------------------------------

    def build(self, order: BuildOrder, cancel: Cancel) -> BuiltImage:
        from builder.epoch import parse_epoch
        from builder.request import BuildRequest
        from registry_client.oci.platform import parse_platform
        from runtime.containers.spec import Limits

        epoch = self._services.settings.epoch
        request = BuildRequest(
            context=order.context,
            dockerfile=order.dockerfile,
            dockerfile_text=order.dockerfile_inline.encode() or None,
            target=order.target,
            build_args={name: value for name, value in order.args if value is not None},
            tags=order.tags,
            platforms=tuple(parse_platform(text) for text in order.platforms),
            no_cache=order.no_cache,
            cache_from=order.cache_from,
            cache_to=order.cache_to,
            epoch=parse_epoch(epoch) if epoch else None,
            rewrite_timestamp=order.rewrite_timestamp,
            pull="always" if order.pull else "auto",
            secrets=order.secrets,
            ssh=order.ssh,
            labels=dict(order.labels),
            network=order.network or "default",
            build_contexts=dict(order.contexts),
            add_hosts=order.extra_hosts,
            limits=Limits(shm_size=order.shm_size) if order.shm_size else Limits(),
            node=order.node,
        )
        cancel.check()
        result = self._services.builder.build(request)
        return BuiltImage(result.image_id, result.cached)

    def image(self, name: str, pull: str, cancel: Cancel, platform: str = "") -> ImageFacts:
        image = self._images.resolve(name, platform=platform or None, pull=cast(Pull, pull), cancel=cancel)
        config = image.config.config
        return ImageFacts(image.id, config.healthcheck, config.env, config.user)

    def tag(self, image_id: str, reference: str) -> None:
        self._images.tag(image_id, reference, all_platforms=True)

    def push(self, reference: str, cancel: Cancel) -> str:
        return self._images.push(reference, cancel=cancel).digest

    # --- containers ---------------------------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> str:
        return self._containers.create(spec, pull="never", start_follows=spec.owner_bound).id

    def start(self, container_id: str, output: OnOutput | None = None) -> None:
        connection = self._containers.start(container_id, attach=("stdout", "stderr") if output else ())
        if connection is None:
            return
        if output is None:
            with self._lock:
                self._held[container_id] = connection
            return
        pump = _Pump(lambda: self._pumped(container_id, connection, output))
        with self._lock:
            self._pumps[container_id] = pump
        pump.start()

    def _pumped(self, container_id: str, connection: Connection, output: OnOutput) -> ExitStatus | None:
        try:
            return connection.pump(lambda kind, data: output(_STREAMS[kind], data))
        finally:
            self._containers.finish(container_id, connection)

    def wait(self, container_id: str, timeout: float | None = None) -> ExitStatus | None:
        pump = self._pumps.get(container_id)
        if pump is None:
            return self._containers.wait(container_id, timeout)
        if not pump.join_within(timeout):
            return None
        # Without a status the shim was killed: the container's state says what is known.
        return pump.status or self._containers.wait(container_id, 60)

    def stop(self, container_id: str, timeout: float) -> None:
        self._containers.stop(container_id, timeout)

    def kill(self, container_id: str, signal: int) -> None:
        try:
            self._containers.kill(container_id, signal)
        except (Conflict, NotFound):
            return  # it ended meanwhile

    def remove(self, container_id: str, *, volumes: bool = True) -> None:
        with self._lock:
            held, pump = self._held.pop(container_id, None), self._pumps.pop(container_id, None)
        if held is not None:
            # Its shim waits for us to say that we saw its end; without us it kills what it was started for.
            held.close()
        try:
            self._containers.remove(container_id, force=True, volumes=volumes)
        except NotFound:
            pass
        if pump is not None:
            pump.join_within(60)

    def rename(self, container_id: str, name: str) -> None:
        self._containers.rename(container_id, name)

    def state(self, container_id: str) -> ContainerState | None:
        container = self._containers.find(container_id)
        return None if container is None else self._state(container)

    def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        filters = [("label", f"{name}={value}") for name, value in labels.items()]
        return [
            self._state(container) for container in self._containers.list(everything=True, filters=filters)
        ]

    def _state(self, container: Container) -> ContainerState:
        endpoints = self._networks.endpoints(container=container.id) if container.running else ()
        return ContainerState(
            id=container.id,
            name=container.name,
            status=container.state.status,
            exit_code=container.state.code,
            health=container.health,
            image=container.image,
            labels=container.spec.labels,
            addresses={endpoint.network.name: endpoint.address for endpoint in endpoints},
            ports=tuple((p.host_ip, p.host_port, p.container_port) for p in container.spec.ports),
        )

    def logs(self, container_id: str, tail: int = 50) -> bytes:
        return b"".join(line.data for line in self._containers.logs(container_id, tail=tail))

    def execute(self, container_id: str, spec: ExecSpec, output: OnOutput | None = None) -> int:
        listen = output or (lambda stream, data: None)
        with self._containers.exec(container_id, spec) as connection:
            status = connection.pump(lambda kind, data: listen(_STREAMS[kind], data))
        return status.code if status else 137

    @contextmanager
    def copy_out(self, container_id: str, path: str) -> Iterator[BinaryIO]:
        import tempfile

        with tempfile.TemporaryFile() as file:
            self._containers.copy_out(container_id, path, cast(BinaryIO, file))
            file.seek(0)
            yield cast(BinaryIO, file)

    def copy_in(self, container_id: str, directory: str, archive: BinaryIO) -> None:
        self._containers.copy_in(container_id, directory, archive)

    def connect(self, container_id: str, attachment: NetworkAttachment) -> None:
        container = self._containers.get(container_id)
        endpoint = self._networks.connect(container.id, container.name, attachment, attachment.aliases)
        self._networks.attach_running(endpoint, container.state.pid)

    # --- networks and volumes -----------------------------------------------------------------------------------

    def network(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        internal: bool = False,
        subnet: str = "",
        gateway: str = "",
    ) -> None:
        try:
            self._networks.create(name, labels=labels, internal=internal, subnet=subnet, gateway=gateway)
        except Conflict:
            if not any(network.name == name for network in self._networks.list()):
                raise

    def remove_network(self, name: str) -> None:
        try:
            self._networks.remove(name)
        except NotFound:
            pass

    def networks(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        for network in self._networks.list():
            if labels.items() <= network.labels.items():
                yield network.name, network.labels

    def volume(self, name: str, *, labels: Mapping[str, str], options: Mapping[str, str]) -> None:
        self._volumes.create(name, labels=labels, options=options)

    def remove_volume(self, name: str) -> None:
        try:
            self._volumes.remove(name, force=True)
        except NotFound:
            pass

    def volumes(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        for volume in self._volumes.list():
            if labels.items() <= volume.labels.items():
                yield volume.name, volume.labels


class _Pump:
    """One thread that passes a container's output on, and keeps how it ended."""

    def __init__(self, work: Callable[[], ExitStatus | None]) -> None:
        self.status: ExitStatus | None = None
        self._work = work
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self.status = self._work()
        except BaseException as error:  # noqa: BLE001  raised by who waits
            self._fault = error

    def join_within(self, timeout: float | None) -> bool:
        """Whether it ended within the time; raises what went wrong in it."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        return True


def check_engine(kind: str, span: Span) -> None:
    """Refuse an environment's engine that is not there; only the local one is so far."""
    if kind in ("", "local"):
        return
    if kind.partition("://")[0] in ("ssh", "tcp", "unix", "npipe", "docker", "kubernetes", "swarm"):
        raise Unsupported(f"engine {kind!r} is not there yet", span, hint="`engine: local` is what there is")
    raise InvalidInput(f"unknown engine {kind!r}", span, hint="`engine: local` is what there is")
