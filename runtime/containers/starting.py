"""Start a container: what its shim is told, and the handshake that gives it its network.

    starter                          shim
      | -- forked with a plan -------> |  makes the namespaces, pauses
      | <------------- created {pid} - |
      |  plugs the network in          |
      | -- release {interfaces} -----> |  lets the program run
      | <------------- running ------- |
      | <------------- exited -------- |
      |  gives the network back        |
      | -- done ---------------------> |  ends

A starter that is killed anywhere in between leaves a shim that hears the end of the connection: before `running` it
ends the container, after it the container goes on, and cleaning up is the shim's.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtime.containers.client import Connection, ShimGone, refusal
from runtime.containers.config import MountPoint, Surroundings, healthcheck_of, oci_config
from runtime.containers.container import Container
from runtime.containers.devices import devices_of
from runtime.containers.files import needs_resolver, write_files
from runtime.containers.health import HealthPolicy
from runtime.containers.namespaces import resolve_namespaces
from runtime.containers.roots import forget_volatile, lowers_of, own_tree
from runtime.containers.seccomp import seccomp_program
from runtime.containers.serving import serve_names
from runtime.containers.signals import parse_signal
from runtime.containers.spec import NetworkAttachment, PortBinding
from runtime.errors import Conflict, HostFault, InvalidInput
from runtime.networks import host
from runtime.sandbox.plan import Plan, RootFs
from runtime.sandbox_errors import translated
from runtime.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.networks.networks import Networks
    from runtime.networks.values import Endpoint
    from runtime.sandbox.spawner import Spawner

SHIM = "runtime.containers.shim.main:main"
DEFAULT_STOP = signal.SIGTERM
_PATIENCE = 10.0


class Starting:
    """One start of one container."""

    def __init__(
        self,
        store: Store,
        networks: Networks,
        spawner: Spawner,
        container: Container,
        other: Callable[[str], Container],
    ) -> None:
        self._store, self._networks, self._spawner = store, networks, spawner
        self._container, self._other = container, other
        self._endpoints: list[Endpoint] = []
        self._shim = 0

    def start(self, *, attach: tuple[str, ...] = ()) -> Connection:
        """Start it; the connection is attached to the streams named, from the first byte on."""
        with _locked(self._container.directory):
            ours, theirs = socket.socketpair()
            connection = Connection(ours)
            try:
                with theirs:
                    self._reserve()
                    argument = self._argument(attach)
                    with translated():
                        self._shim = self._spawner.shim(SHIM, argument, [theirs.fileno()]).pid
                self._shake_hands(connection)
            except BaseException as error:
                connection.close()
                self._wait_for_shim()
                self._networks.release(self._container.id)
                if isinstance(error, ShimGone):
                    raise HostFault(f"the shim of container {self._container.name} was killed") from error
                raise
            return connection

    def _shake_hands(self, connection: Connection) -> None:
        while True:
            event = connection.expect("event", ("created", "running", "failed"))
            if event["event"] == "failed":
                connection.send(op="done")
                raise refusal(event)
            if event["event"] == "running":
                return
            interfaces = self._plug(int(event["pid"]))
            held = list(self._networks.held(self._container.id))
            connection.send(op="release", interfaces=interfaces, fds=held)

    def _wait_for_shim(self) -> None:
        """After a start that failed: whoever tries again or removes the container is alone with it."""
        try:
            descriptor = os.pidfd_open(self._shim) if self._shim else -1
        except ProcessLookupError:
            return
        if descriptor >= 0:
            select.select([descriptor], [], [], _PATIENCE)
            os.close(descriptor)

    # --- network

    def _reserve(self) -> None:
        """Addresses first: they stand in /etc/hosts before there is a process."""
        container = self._container
        if container.networked:
            wanted = container.spec.networks or (NetworkAttachment(network="bridge"),)
            ordered = sorted(wanted, key=lambda attachment: -attachment.priority)
            self._endpoints = [
                self._networks.connect(container.id, container.name, attachment) for attachment in ordered
            ]

    def _plug(self, pid: int) -> list[dict[str, str | int]]:
        interfaces = [self._networks.attach(endpoint, pid) for endpoint in self._endpoints]
        if needs_resolver(self._container, self._endpoints):
            serve_names(self._spawner, self._store.root, self._container, pid, self._shim)
        if self._container.spec.restart.name != "no":
            # The namespace outlives its first process: its addresses belong to the shim.
            for endpoint in self._endpoints:
                self._networks.records.own(endpoint, host.token_of(self._shim))
        ports = self._ports()
        if ports:
            if not self._endpoints:
                raise InvalidInput("ports can only be published on a network of the container's own")
            first = next((e for e in self._endpoints if not e.network.internal), self._endpoints[0])
            self._networks.publish(self._container.id, first, ports)
        return interfaces

    def _ports(self) -> tuple[PortBinding, ...]:
        spec = self._container.spec
        if not spec.publish_all:
            return spec.ports
        given = {(port.container_port, port.protocol) for port in spec.ports}
        exposed = dict.fromkeys((*self._container.image_config.exposed_ports, *spec.expose))
        more = []
        for text in exposed:
            number, _, protocol = text.partition("/")
            if (int(number), protocol or "tcp") not in given:
                more.append(PortBinding(container_port=int(number), protocol=protocol or "tcp"))
        return (*spec.ports, *more)

    # --- what the shim is told

    def _argument(self, attach: tuple[str, ...]) -> dict[str, Any]:
        container, spec = self._container, self._container.spec
        config, seccomp = self._config()
        files = write_files(container, self._endpoints, self._other)
        plan = Plan(config, self._rootfs(), files=files, seccomp=seccomp, init=spec.init)
        return {
            "id": container.id,
            "root": self._store.root,
            "directory": container.directory,
            "plan": plan.to_json(),
            "runtime": spec.runtime,
            "pause": bool(self._endpoints),
            "own_network": container.networked,
            "tty": spec.tty,
            "stdin": spec.stdin,
            "stdin_once": "stdin" in attach,
            "attach": list(
                attach
            ),  # here and not as a request: a short-lived process would be quicker than that
            "log": log_settings(container),
            "restart": {"policy": spec.restart.name, "maximum": spec.restart.maximum},
            "health": self._health(config, seccomp),
            "stop_signal": int(stop_signal(container)),
            "stop_timeout": spec.stop_timeout,
            "cgroup": container.cgroup,
            "auto_remove": spec.auto_remove,
            "owner_bound": spec.owner_bound,
        }

    def _rootfs(self) -> RootFs:
        container = self._container
        if tree := own_tree(self._store, container):
            return RootFs([], tree)
        upper, work = (os.path.join(container.directory, name) for name in ("upper", "work"))
        forget_volatile(work)
        # What is thrown away need not reach the disk.
        volatile = container.spec.auto_remove
        return RootFs(list(lowers_of(self._store, container)), upper, work, volatile=volatile)

    def _config(self) -> tuple[dict[str, Any], str]:
        container, spec = self._container, self._container.spec
        spaces = resolve_namespaces(spec, self._other)
        around = Surroundings(
            id=container.id,
            cgroup="/" + container.cgroup,
            mounts=tuple(MountPoint(m.target, m.type, m.source, m.options) for m in container.mounts),
            devices=devices_of(spec),
            network=spaces.network,
            pid=spaces.pid,
            ipc=spaces.ipc,
            uts=spaces.uts,
            cgroupns=spaces.cgroup,
        )
        config = oci_config(spec, container.image_config, around)
        seccomp = seccomp_program(self._store.root, spec, config["process"]["capabilities"]["bounding"])
        return config, seccomp

    def _health(self, config: dict[str, Any], seccomp: str) -> dict[str, Any] | None:
        check = healthcheck_of(self._container.spec, self._container.image_config)
        if check is None:
            return None
        policy = HealthPolicy(
            list(check.test),
            check.interval / 1e9,
            check.timeout / 1e9,
            check.start_period / 1e9,
            check.start_interval / 1e9,
            check.retries,
        )
        shell = list(self._container.image_config.shell or ("/bin/sh", "-c"))
        process = {**config["process"], "args": policy.argv(shell), "terminal": False}
        return {"policy": policy.to_json(), "process": process, "seccomp": seccomp}


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """One start at a time; the lock goes with its holder."""
    import fcntl

    try:
        descriptor = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise Conflict("the container is just being made or removed") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def stop_signal(container: Container) -> signal.Signals:
    """What `stop` sends: the spec's, the image's, or TERM."""
    text = container.spec.stop_signal or container.image_config.stop_signal
    return parse_signal(text) if text else DEFAULT_STOP


def log_settings(container: Container) -> dict[str, Any]:
    """The log in the shim's words; sizes are Docker's (`10m`)."""
    options = container.spec.log_options
    known = ("max-size", "max-file", "compress", "mode", "max-buffer-size", "labels", "tag", "env")
    for name in options:
        if name not in known:
            raise InvalidInput(f"unknown log option {name!r}", hint=", ".join(known[:2]))
    try:
        max_files = int(options.get("max-file", "1"))
        size = parse_size(options["max-size"]) if "max-size" in options else 0
    except ValueError as error:
        raise InvalidInput(f"log options {dict(options)} are not sizes and counts") from error
    if max_files > 1 and not size:
        raise InvalidInput("log option max-file needs max-size")
    return {
        "driver": container.spec.log_driver,
        "path": container.log_path,
        "max_size": size,
        "max_files": max_files,
    }


def parse_size(text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "b": 1}
    body = text.lower().removesuffix("ib") or text
    unit = body[-1:] if body[-1:] in units else ""
    return int(float(body.removesuffix(unit)) * units.get(unit, 1))
