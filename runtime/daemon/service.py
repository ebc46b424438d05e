"""The daemon as a server: its addresses, who may connect, its pid file, and the API put together."""

from __future__ import annotations

import grp
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from registry_client.values import frozen
from runtime.daemon.api import EngineApi
from runtime.daemon.attached import Attached
from runtime.daemon.building import Building, ImageBuilder, SessionBuild
from runtime.daemon.container_files import ContainerFiles
from runtime.daemon.containers import ContainerRoutes
from runtime.daemon.disk import DiskRoutes
from runtime.daemon.engine import Engine
from runtime.daemon.errors import error_response
from runtime.daemon.execs import Execs
from runtime.daemon.happenings import EventRoutes
from runtime.daemon.images import ImageRoutes
from runtime.daemon.networks import NetworkRoutes
from runtime.daemon.stats import StatsRoutes
from runtime.daemon.system import System
from runtime.daemon.transfers import Transfers
from runtime.daemon.volumes import VolumeRoutes
from runtime.errors import Conflict, HostFault, InvalidInput
from runtime.http.messages import Request, Response
from runtime.http.router import Handler
from runtime.http.server import Server, listen_tcp, listen_unix
from runtime.store.durable import replace_file
from runtime.store.owners import is_running

DEFAULT_PORT, TLS_PORT = 2375, 2376  # as assigned to docker
_LOOPBACK = ("127.", "::1", "localhost")


@frozen(kw_only=True)
class Tls:
    """PEM files. With `authority` a client has to show a certificate signed by it."""

    certificate: str
    key: str
    authority: str = ""


@frozen(kw_only=True)
class Options:
    """`hosts` are `unix://PATH` or `tcp://HOST:PORT`; `group` owns the sockets, where there is such a group."""

    hosts: tuple[str, ...]
    group: str = "docker"
    pidfile: str = ""
    tls: Tls | None = None
    plain_tcp: bool = False  # let anybody who reaches it be root


@frozen
class Address:
    kind: str  # unix or tcp
    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_loopback(self) -> bool:
        return self.host.startswith(_LOOPBACK)


def parse_host(text: str, tls: bool = False) -> Address:
    """`unix:///run/pipe.sock`, `tcp://127.0.0.1:2375`; the port may be left out."""
    kind, separator, rest = text.partition("://")
    if not separator:
        kind, rest = ("unix", text) if text.startswith("/") else ("tcp", text)
    if kind == "unix" and rest:
        return Address("unix", path=os.path.abspath(rest))
    if kind != "tcp":
        raise InvalidInput(
            f"invalid host {text!r}", hint="want unix:///run/pipe.sock or tcp://127.0.0.1:2375"
        )
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, str(TLS_PORT if tls else DEFAULT_PORT)
    if not port.isdigit() or int(port) > 65535:
        raise InvalidInput(
            f"invalid host {text!r}: {port!r} is no port", hint="for example tcp://127.0.0.1:2375"
        )
    return Address("tcp", host=host.strip("[]") or "127.0.0.1", port=int(port))


def engine_api(engine: Engine, builder: ImageBuilder, in_session: SessionBuild | None = None) -> EngineApi:
    """The API with the routes of this package. `in_session` builds what comes with a session (`Building`)."""

    def within_leases(handler: Handler, request: Request) -> Response:
        # This process lives long: what a request looks at must not be kept from the collector for good.
        with engine.store.leases.passing():
            return handler(request)

    api = EngineApi(
        {"Server": f"pipe/{engine.facts.version} (linux)", "Docker-Experimental": "false"}, within_leases
    )
    api.add(System(engine, api).routes())
    api.add(Building(engine, builder, in_session).routes())
    api.add(Transfers(engine, builder.config_of).routes())
    api.add(ImageRoutes(engine).routes())
    api.add(EventRoutes(engine).routes())
    attached = Attached(engine)
    api.add(attached.routes())
    api.add(Execs(engine).routes())
    api.add(ContainerRoutes(engine, attached).routes())
    api.add(ContainerFiles(engine).routes())
    api.add(StatsRoutes(engine).routes())
    api.add(NetworkRoutes(engine).routes())
    api.add(VolumeRoutes(engine).routes())
    api.add(DiskRoutes(engine, builder).routes())
    return api


@contextmanager
def serving(api: EngineApi, options: Options) -> Iterator[tuple[str, ...]]:
    """Serve within the block; yields the addresses, each as a client has to write it."""
    addresses = [parse_host(text, options.tls is not None) for text in options.hosts]
    for address in addresses:
        check_exposure(address, options)
    with _pidfile(options.pidfile):
        listeners = []
        try:
            for address in addresses:
                listeners.append(_listen(address, _group(options.group)))
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        tls = _context(options.tls) if options.tls else None
        with Server(api, listeners, on_error=error_response, tls=tls) as server:
            yield tuple(f"{'unix' if each.startswith('/') else 'tcp'}://{each}" for each in server.addresses)


def check_exposure(address: Address, options: Options) -> None:
    """Whoever reaches the API is root on this host (DESIGN.md, Security rules)."""
    if address.kind != "tcp" or options.plain_tcp or (options.tls and options.tls.authority):
        return
    if not address.is_loopback:
        raise InvalidInput(
            f"refusing to serve tcp://{address.host}:{address.port} to anybody who reaches it",
            hint="ask for client certificates with --tlsverify, or say --allow-plain-tcp",
        )


def _listen(address: Address, group: int) -> socket.socket:
    if address.kind == "unix":
        try:
            return listen_unix(address.path, 0o660, group)
        except Conflict as error:
            raise Conflict(
                error.message, hint="another daemon serves there; stop it or choose another --host"
            ) from error
    return listen_tcp(address.host, address.port)


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name not in ("", "docker"):
            raise InvalidInput(f"no group {name!r} on this host") from None
        return -1


@contextmanager
def _pidfile(path: str) -> Iterator[None]:
    """Our pid in a file, for whoever starts and stops daemons; refused while its last owner lives."""
    if not path:
        yield
        return
    with suppress(OSError, ValueError):
        with open(path, encoding="ascii") as file:
            pid = int(file.read())
        if pid != os.getpid() and is_running(pid):
            raise Conflict(
                f"process {pid} of {path} is still running", hint="stop it, or choose another --pidfile"
            )
    try:
        replace_file(path, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise HostFault(f"cannot write {path}: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.authority:
            context.load_verify_locations(tls.authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"cannot use the certificate {tls.certificate}: {error}") from error
    return context
