"""One client per registry, made when first needed, with what was configured for its host.

This is what the rest of the program is handed: `Clients(...).client(reference)`. Importing it costs nothing; httpx
comes with the first client.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from registry_client.credentials import Credentials, NoCredentials
from registry_client.endpoint import Tls, parse_mirror
from registry_client.reference import Reference
from registry_client.values import field, frozen, replace

if TYPE_CHECKING:
    from registry_client.client import RegistryClient


@frozen(kw_only=True)
class RegistryOptions:
    """What a user may say about registries. In docker's directory `certificates`, `HOST/*.crt` are authorities and
    `HOST/*.cert` with `*.key` the client's own."""

    insecure: frozenset[str] = frozenset()
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    certificates: str = "/etc/docker/certs.d"
    ca_bundle: str = ""  # authorities for all hosts, beside the system's
    timeout: float = 60.0
    attempts: int = 5


class Clients:
    """All registries this process talks to. Safe to use from threads; a context manager that closes its clients."""

    def __init__(
        self,
        credentials: Credentials | None = None,
        options: RegistryOptions | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._credentials = credentials or NoCredentials()
        self._options = options or RegistryOptions()
        self._notify = notify
        self._lock = threading.Lock()
        self._clients: dict[str, RegistryClient] = {}
        self._aborted: list[RegistryClient] = []  # replaced, and not closed yet: threads may be using them

    def client(self, reference: Reference) -> RegistryClient:
        """The client for a reference's registry."""
        return self.for_host(reference.domain)

    def for_host(self, host: str) -> RegistryClient:
        with self._lock:
            known = self._clients.get(host)
            if known is not None and known.aborted:
                self._aborted.append(known)
            if known is None or known.aborted:
                known = self._clients[host] = self._connect(host)
            return known

    def _connect(self, host: str) -> RegistryClient:
        from registry_client.client import RegistryClient

        options = self._options
        mirrors = [
            parse_mirror(url, insecure=mirror_host(url) in options.insecure, tls=self._tls(mirror_host(url)))
            for url in options.mirrors.get(host, ())
        ]
        return RegistryClient(
            host,
            credentials=self._credentials,
            insecure=host in options.insecure,
            tls=self._tls(host),
            mirrors=mirrors,
            timeout=options.timeout,
            attempts=options.attempts,
            notify=self._notify,
        )

    def _tls(self, host: str) -> Tls | None:
        options = self._options
        found = tls_from_directory(os.path.join(options.certificates, host)) if options.certificates else None
        if options.ca_bundle:
            found = found or Tls()
            found = replace(found, authorities=(options.ca_bundle, *found.authorities))
        return found

    def close(self) -> None:
        with self._lock:
            clients = [*self._clients.values(), *self._aborted]
            self._clients, self._aborted = {}, []
        for client in clients:
            client.close()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def tls_from_directory(directory: str) -> Tls | None:
    """TLS material laid out as docker does it; None when the directory has none."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return None
    authorities = tuple(os.path.join(directory, name) for name in names if name.endswith(".crt"))
    own = next((os.path.join(directory, name) for name in names if name.endswith(".cert")), "")
    key = own.removesuffix(".cert") + ".key" if own else ""
    return Tls(authorities, own, key) if authorities or own else None


def mirror_host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] if "://" in url else url.partition("/")[0]
