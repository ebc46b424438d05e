"""The registry as the rest of the program sees it: manifests, blobs, tags, referrers of one host.

Everything read is verified against its digest, and limited in size. Reads try the mirrors first, in order, and then
the registry itself; writes go to the registry only. What is kept of what came is the caller's business. Safe to use
from threads. Importing this module imports httpx: do it where a registry is really talked to.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import httpx

from registry_client.auth import repository_scope
from registry_client.connection import MANIFEST_LIMIT, Connection
from registry_client.credentials import Credentials, NoCredentials
from registry_client.endpoint import Endpoint, Tls, endpoint_for
from registry_client.errors import (
    Denied,
    Invalid,
    NotFound,
    RateLimited,
    RegistryError,
    Unauthorized,
    Unreachable,
)
from registry_client.exchange import Request
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.manifest import parse_manifest
from registry_client.paging import next_page
from registry_client.patience import Patience
from registry_client.received import checked_digest, media_type_of, verified_digest
from registry_client.referrers import Referrers
from registry_client.transfers import BlobReader, StartedBlob
from registry_client.uploads import OpenAt, Progress, Pushed, Upload, has_blob

_PAGE = 1000
T = TypeVar("T")


class RegistryClient:
    """One registry, named as in references: `docker.io`, `localhost:5000`."""

    def __init__(
        self,
        host: str,
        *,
        credentials: Credentials | None = None,
        plain_http: bool | None = None,
        insecure: bool = False,
        ca: str = "",
        tls: Tls | None = None,
        mirrors: Iterable[Endpoint] = (),
        timeout: float = 60.0,
        attempts: int = 5,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        """`notify` is told what a person may want to know: a registry's warning, a pause before another attempt."""
        self.host = host
        material = tls or (Tls((ca,)) if ca else None)

        def connect(endpoint: Endpoint, patience: Patience) -> Connection:
            return Connection(
                endpoint,
                credentials or NoCredentials(),
                timeout=timeout,
                patience=patience,
                transport=transport,
                notify=notify,
            )

        patience = patience or Patience(attempts)
        # A mirror that does not answer is left after one try: the registry itself is behind it.
        once = Patience(1, sleep=patience.sleep)
        endpoint = endpoint_for(host, plain_http=plain_http, insecure=insecure, tls=material)
        self._registry = connect(endpoint, patience)
        self._mirrors = tuple(connect(mirror, once) for mirror in mirrors)

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        for connection in (self._registry, *self._mirrors):
            connection.close()

    def abort(self) -> None:
        """Break off what other threads are doing with this client, and refuse anything further."""
        for connection in (self._registry, *self._mirrors):
            connection.abort()

    @property
    def aborted(self) -> bool:
        return self._registry.aborted

    def ping(self) -> None:
        """Ask whether this is a registry and lets us in; the error says what is wrong."""
        self._registry.call(Request("GET", "", f"log in to {self.host}"))

    # ── manifests ──────────────────────────────────────────────────────────────────────────────────────────────────

    def manifest(
        self, repository: str, selector: str, accept: Iterable[str] = media_types.ACCEPT
    ) -> tuple[bytes, str, Digest]:
        """The exact bytes, media type and digest of a manifest or index, by tag or digest."""
        what = f"pull {_named(repository, selector)} from {self.host}"
        headers = {"Accept": ", ".join(accept)}

        def read(connection: Connection, query: str) -> tuple[bytes, str, Digest]:
            request = Request(
                "GET", f"{repository}/manifests/{selector}{query}", what, _pull(repository), headers
            )
            response, raw = connection.call(request)
            told = response.headers.get("docker-content-digest", "")
            return raw, media_type_of(response, raw), verified_digest(raw, selector, told, what)

        return self._first_of(read)

    def head_manifest(
        self, repository: str, selector: str, accept: Iterable[str] = media_types.ACCEPT
    ) -> Descriptor:
        """Media type, digest and size without the manifest; NotFound when there is none."""
        what = f"look up {_named(repository, selector)} at {self.host}"
        headers = {"Accept": ", ".join(accept)}

        def read(connection: Connection, query: str) -> Descriptor | None:
            request = Request(
                "HEAD", f"{repository}/manifests/{selector}{query}", what, _pull(repository), headers
            )
            response, _ = connection.call(request)
            digest = response.headers.get("docker-content-digest") or (selector if ":" in selector else "")
            length = response.headers.get("content-length", "")
            if not digest or not length.isdigit():
                return None  # an old registry: only the manifest itself tells
            return Descriptor(media_type_of(response, b""), checked_digest(digest, what), int(length))

        found = self._first_of(read)
        if found is not None:
            return found
        raw, media_type, digest = self.manifest(repository, selector, accept)
        return Descriptor(media_type, digest, len(raw))

    def put_manifest(self, repository: str, selector: str, raw: bytes, media_type: str) -> Digest:
        """Store a manifest or index under a tag or its digest; its blobs and children must be there."""
        what = f"push {_named(repository, selector)} to {self.host}"
        if len(raw) > MANIFEST_LIMIT:
            raise Invalid(f"cannot {what}: the manifest has more than {MANIFEST_LIMIT} bytes")
        request = Request(
            "PUT",
            f"{repository}/manifests/{selector}",
            what,
            _push(repository),
            {"Content-Type": media_type},
            lambda: raw,
        )
        response, _ = self._registry.call(request, ok=(201, 200, 202))
        digest = Digest(selector) if ":" in selector else digest_of(raw)
        told = response.headers.get("docker-content-digest", "")
        if told and told.partition(":")[0] == digest.partition(":")[0] and told != digest:
            raise Invalid(f"cannot {what}: the registry made {told} of {digest}")
        if b'"subject"' in raw and "oci-subject" not in response.headers:
            Referrers(self._registry).announce(repository, parse_manifest(raw, media_type))
        return digest

    def delete(self, repository: str, selector: str) -> None:
        """Delete a tag, or by digest a manifest with all its tags."""
        what = f"delete {_named(repository, selector)} at {self.host}"
        request = Request("DELETE", f"{repository}/manifests/{selector}", what, _delete(repository))
        self._registry.call(request, ok=(202, 200, 204))

    # ── blobs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def blob(
        self,
        repository: str,
        digest: Digest,
        *,
        offset: int = 0,
        size: int | None = None,
        urls: Iterable[str] = (),
        verify: bool = True,
    ) -> Iterator[Iterator[bytes]]:
        """A blob's bytes from `offset` on, in chunks. `urls` are a foreign layer's own addresses.

        Broken connections are taken up again where they broke. With offset 0 the content is verified before the
        iterator ends, and with `size` also its length; `verify=False` leaves the digest to the caller.
        """
        with ExitStack() as stack:
            source = self._blob_source(repository, digest, offset, size, tuple(urls), verify)
            stack.callback(source.close)
            yield source

    def _blob_source(
        self,
        repository: str,
        digest: Digest,
        offset: int,
        size: int | None,
        urls: tuple[str, ...],
        verify: bool,
    ) -> StartedBlob:
        what = f"pull blob {digest[:19]} of {repository} from {self.host}"

        def read(connection: Connection, query: str) -> StartedBlob:
            request = Request("GET", f"{repository}/blobs/{digest}{query}", what, _pull(repository))
            return started(connection, request)

        def started(connection: Connection, request: Request) -> StartedBlob:
            reader = BlobReader(connection, request, digest, offset=offset, size=size, verify=verify)
            return StartedBlob(iter(reader))

        try:
            return self._first_of(read)
        except NotFound:
            for url in urls:
                if url.startswith("https://"):
                    return started(self._registry, Request("GET", url, what, trusted=False))
            raise

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether a push of this blob can be left out."""
        what = f"look up blob {digest[:19]} at {self.host}/{repository}"
        return has_blob(self._registry, repository, digest, _push(repository), what)

    def push_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        open_at: OpenAt,
        *,
        mount_from: str = "",
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> Pushed:
        """Bring a blob to the registry. `open_at(offset)` opens its content there, again for every attempt.

        `mount_from` is a repository of the same registry that has it. `chunk` limits the size of one request.
        """
        if self.has_blob(repository, descriptor.digest):
            return Pushed.EXISTS
        upload = Upload(self._registry, repository, descriptor, open_at, chunk=chunk, progress=progress)
        return upload.run(mount_from if mount_from != repository else "")

    def delete_blob(self, repository: str, digest: Digest) -> None:
        what = f"delete blob {digest[:19]} at {self.host}/{repository}"
        request = Request("DELETE", f"{repository}/blobs/{digest}", what, _delete(repository))
        self._registry.call(request, ok=(202, 200, 204))

    # ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def tags(self, repository: str) -> tuple[str, ...]:
        """All tags, as the registry orders them."""
        what = f"list the tags of {repository} at {self.host}"
        url = f"{repository}/tags/list?n={_PAGE}"
        return tuple(self._pages(url, what, _pull(repository), "tags"))

    def catalog(self) -> tuple[str, ...]:
        """All repositories of the registry, where it tells."""
        what = f"list the repositories of {self.host}"
        return tuple(self._pages(f"_catalog?n={_PAGE}", what, ("registry:catalog:*",), "repositories"))

    def referrers(self, repository: str, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What refers to the manifest `digest`: signatures, attestations, bills of materials."""
        return Referrers(self._registry).find(repository, digest, artifact_type)

    def _pages(self, url: str, what: str, scopes: tuple[str, ...], key: str) -> Iterator[str]:
        seen = set()
        while url and url not in seen:
            seen.add(url)
            response, raw = self._registry.call(Request("GET", url, what, scopes))
            try:
                record = json.loads(raw)
                yield from (str(name) for name in record.get(key) or ())
            except (ValueError, AttributeError, TypeError) as error:
                raise Invalid(f"cannot {what}: the answer is no list") from error
            url = next_page(response, what)

    # ── mirrors ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _first_of(self, read: Callable[[Connection, str], T]) -> T:
        for mirror in self._mirrors:
            try:
                # `ns` tells a mirror of many registries which one is meant (containerd's convention).
                return read(mirror, f"?ns={urllib.parse.quote(self.host)}")
            except (NotFound, Unreachable, Unauthorized, Denied, RateLimited):
                continue
        return read(self._registry, "")


def _pull(repository: str) -> tuple[str, ...]:
    return (repository_scope(repository, "pull"),)


def _push(repository: str) -> tuple[str, ...]:
    return (repository_scope(repository, "pull", "push"),)


def _delete(repository: str) -> tuple[str, ...]:
    return (repository_scope(repository, "delete", "pull"),)


def _named(repository: str, selector: str) -> str:
    return f"{repository}{'@' if ':' in selector else ':'}{selector}"


__all__ = ["Pushed", "RegistryClient", "RegistryError"]
