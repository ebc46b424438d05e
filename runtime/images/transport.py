"""How images get to and from registries, as far as this room cares. The real thing is `registry_client`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.reference import Reference


class Client(Protocol):
    """One registry host (`registry_client.client.RegistryClient`)."""

    def manifest(self, repository: str, selector: str) -> tuple[bytes, str, Digest]: ...

    def put_manifest(self, repository: str, selector: str, raw: bytes, media_type: str) -> Digest: ...

    def blob(
        self, repository: str, digest: Digest, *, offset: int = 0
    ) -> AbstractContextManager[Iterator[bytes]]: ...

    def has_blob(self, repository: str, digest: Digest) -> bool: ...

    def push_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        *,
        mount_from: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> object: ...


class Transport(Protocol):
    def client(self, reference: Reference) -> Client:
        """The client for the reference's host."""
        ...


class NoTransport:
    """For those who only use what is here."""

    def client(self, reference: Reference) -> Client:
        from runtime.errors import Unavailable

        raise Unavailable(
            f"no registry is reachable from here, so {reference.familiar} cannot be transferred"
        )
