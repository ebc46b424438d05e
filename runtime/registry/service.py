"""A registry within this process: the pieces put together, an address, a guard.

`EmbeddedRegistry` serves on threads for the length of a block; `process` makes it a process of its own.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from registry_client.values import field, frozen
from runtime.errors import Conflict, HostFault, InvalidInput
from runtime.http.server import Server, listen_tcp
from runtime.images.images import Images
from runtime.registry.access import Access, guarded
from runtime.registry.answers import error_response
from runtime.registry.api import RegistryApi
from runtime.registry.records import Records
from runtime.registry.repositories import Repositories
from runtime.registry.uploads import Uploads
from runtime.store import Store

DEFAULT_ADDRESS = "127.0.0.1:5050"


@frozen(kw_only=True)
class ServiceOptions:
    """`address` is HOST:PORT; port 0 takes the port of the last time, or any free one."""

    address: str = DEFAULT_ADDRESS
    access: Access = field(default_factory=Access)
    certificate: str = ""
    key: str = ""


class EmbeddedRegistry:
    """A registry on a store. `preferred_port` is tried first where the address leaves the port open."""

    def __init__(
        self, store: Store, images: Images, options: ServiceOptions | None = None, preferred_port: int = 0
    ) -> None:
        options = options or ServiceOptions()
        self._records = Records(store.db)
        self._records.sweep(store.content.has)
        self._uploads = Uploads(store.content, self._records)
        repositories = Repositories(store, images, self._records, self.own_hosts)
        api = RegistryApi(store, repositories, self._records, self._uploads)
        handler = guarded(api, options.access)
        tls = _tls_context(options)
        self._server = Server(
            handler, [_listen(options.address, preferred_port)], on_error=error_response, tls=tls
        )

    @property
    def address(self) -> str:
        return self._server.addresses[0]

    def own_hosts(self) -> tuple[str, ...]:
        """What people may write before a repository to mean this registry."""
        host, _, port = self.address.rpartition(":")
        return tuple(dict.fromkeys((f"localhost:{port}", f"127.0.0.1:{port}", f"{host}:{port}")))

    def __enter__(self) -> EmbeddedRegistry:
        self._server.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._server.stop()
        self._uploads.close()


def _listen(address: str, preferred_port: int) -> socket.socket:
    host, port = parse_address(address)
    if port == 0 and preferred_port:
        with suppress(Conflict, HostFault):
            return listen_tcp(host, preferred_port)
    return listen_tcp(host, port)


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:5050`, `[::1]:0`, `:5050` (all addresses) or `5050` (loopback)."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"invalid address {text!r}", hint="want HOST:PORT, for example 127.0.0.1:5050")
    if not host:
        host = "0.0.0.0" if text.startswith(":") else "127.0.0.1"
    return host.strip("[]"), int(port)


def _tls_context(options: ServiceOptions) -> ssl.SSLContext | None:
    if not options.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.certificate, options.key or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"cannot use the certificate {options.certificate}: {error}") from error
    return context
