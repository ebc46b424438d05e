"""How images get to and from registries, as far as this room cares; and their errors in our words.

The real client is `registry_client`'s. It imports an HTTP library, so it is imported only when a registry is talked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Protocol

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.reference import Reference
from runtime.errors import Denied, InvalidInput, NotFound, PipeError, Unavailable


class Client(Protocol):
    """One registry host (`registry_client.client.RegistryClient`)."""

    def manifest(self, repository: str, selector: str) -> tuple[bytes, str, Digest]: ...

    def put_manifest(self, repository: str, selector: str, raw: bytes, media_type: str) -> Digest: ...

    def blob(
        self,
        repository: str,
        digest: Digest,
        *,
        offset: int = 0,
        size: int | None = None,
        urls: Iterable[str] = (),
        verify: bool = True,
    ) -> AbstractContextManager[Iterator[bytes]]: ...

    def push_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        *,
        mount_from: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> object: ...

    def close(self) -> None: ...


class Transport(Protocol):
    def client(self, host: str) -> Client:
        """A client for one registry host, for the caller to close."""
        ...


class Registries:
    """The `Transport` over HTTP. `options` go to each `RegistryClient` (credentials, timeout, mirrors …)."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def client(self, host: str) -> Client:
        from registry_client.client import RegistryClient

        return RegistryClient(host, **self._options)


class NoTransport:
    """For those who only use what is here."""

    def client(self, host: str) -> Client:
        raise Unavailable(f"no registry can be reached from here, not even {host}")


@contextmanager
def connected(transport: Transport, reference: Reference) -> Iterator[Client]:
    """A client for the reference's registry, for the length of the block; its errors become ours."""
    from registry_client import errors

    categories: tuple[tuple[type[errors.RegistryError], type[PipeError]], ...] = (
        (errors.Unauthorized, Denied),
        (errors.Denied, Denied),
        (errors.CredentialError, Denied),
        (errors.NotFound, NotFound),
        (errors.Rejected, InvalidInput),
    )
    try:
        client = transport.client(reference.domain)
        try:
            yield client
        finally:
            client.close()
    except errors.RegistryError as error:
        ours = next((ours for theirs, ours in categories if isinstance(error, theirs)), Unavailable)
        raise ours(error.message, hint=error.hint) from error
