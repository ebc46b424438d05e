"""How images get to and from registries, as far as this room cares; and their errors in our words.

The real client is `registry_client`'s. It imports an HTTP library, so it is imported only when a registry is talked to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.reference import Reference
from runtime.cancel import Cancel
from runtime.errors import Denied, InvalidInput, NotFound, PipeError, Unavailable
from runtime.events import Emit, Warned, ignore

if TYPE_CHECKING:
    from registry_client.clients import Clients
    from registry_client.credentials import Credentials


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
        """The client for the reference's registry; the transport keeps and closes it."""
        ...


class RegistryTransport:
    """The `Transport` over HTTP. Made without importing any of it: many commands never talk to a registry."""

    def __init__(
        self,
        *,
        docker_config: str = "",
        credentials: Credentials | None = None,
        ca_bundle: str | None = None,
        insecure: tuple[str, ...] = (),
        emit: Emit = ignore,
    ) -> None:
        """`credentials` are used instead of those of `docker_config`, which is a directory as DOCKER_CONFIG is."""
        self._docker_config, self._ca_bundle, self._insecure = docker_config, ca_bundle, insecure
        self._credentials = credentials
        self._emit = emit
        self._clients: Clients | None = None
        self._lock = threading.Lock()

    def scoped(self) -> RegistryTransport:
        """Another one with the same logins and settings."""
        return RegistryTransport(
            docker_config=self._docker_config,
            credentials=self._credentials,
            ca_bundle=self._ca_bundle,
            insecure=self._insecure,
            emit=self._emit,
        )

    def client(self, reference: Reference) -> Client:
        with self._lock:
            if self._clients is None:
                self._clients = self._connect()
        return self._clients.client(reference)

    def _connect(self) -> Clients:
        from registry_client.clients import Clients, RegistryOptions
        from registry_client.credentials import DockerConfig, NoCredentials

        path = os.path.join(self._docker_config, "config.json")
        credentials = self._credentials or (DockerConfig(path) if self._docker_config else NoCredentials())
        options = RegistryOptions(insecure=frozenset(self._insecure), ca_bundle=self._ca_bundle or "")
        return Clients(credentials, options, self._warn)

    def _warn(self, message: str) -> None:
        """What a registry wants people to know, and why it takes longer."""
        self._emit(Warned(node="registries", message=message))

    def close(self) -> None:
        with self._lock:
            if self._clients is not None:
                self._clients.close()
                self._clients = None


class NoTransport:
    """For those who only use what is here."""

    def client(self, reference: Reference) -> Client:
        raise Unavailable(f"no registry can be reached from here, not even {reference.domain}")


@contextmanager
def connected(transport: Transport, reference: Reference, cancel: Cancel | None = None) -> Iterator[Client]:
    """A client for the reference's registry, for the length of the block; its errors become ours.

    A cancellation breaks off what the client waits for: an answer, a pause the registry asked for.
    """
    from registry_client.errors import RegistryError

    cancel = cancel or Cancel()
    try:
        client = transport.client(reference)
        with cancel.on_cancel(lambda: break_off(client)):
            yield client
    except RegistryError as error:
        cancel.check()
        raise in_our_words(error) or error from error


def in_our_words(error: Exception) -> PipeError | None:
    """What a registry's error is to us; None for an error that is not one."""
    from registry_client import errors

    if isinstance(error, PipeError):
        return error
    if not isinstance(error, errors.RegistryError):
        return None
    categories: tuple[tuple[type[errors.RegistryError], type[PipeError]], ...] = (
        (errors.Unauthorized, Denied),
        (errors.Denied, Denied),
        (errors.CredentialError, Denied),
        (errors.NotFound, NotFound),
        (errors.Rejected, InvalidInput),
    )
    ours = next((ours for theirs, ours in categories if isinstance(error, theirs)), Unavailable)
    return ours(error.message, hint=error.hint)


@contextmanager
def of_its_own(transport: Transport) -> Iterator[Transport]:
    """The same registries through clients of its own: what breaks off in the block breaks off for nobody else."""
    scoped = transport.scoped() if isinstance(transport, RegistryTransport) else transport
    try:
        yield scoped
    finally:
        if scoped is not transport and isinstance(scoped, RegistryTransport):
            scoped.close()


def break_off(client: Client) -> None:
    """End what the client's threads wait for. It is of no use afterwards, for anybody."""
    # Not part of the Protocol: a fake has nothing it would wait for.
    if callable(abort := getattr(client, "abort", None)):
        abort()
