"""Where shared caches lie: a repository of a registry, or a directory that is an OCI image layout.

Both are asked for manifests and blobs and given some; what these mean is not known here. What is read is verified
against its digest on the way. A blob is written under a name of its own and renamed, the index last.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, Protocol

from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor, parse_descriptor
from registry_client.oci.digest import Digest, parse_digest, split_digest
from registry_client.oci.manifest import Index, Manifest, make_index, parse_manifest
from registry_client.reference import Reference, parse_reference
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound
from runtime.images.transport import Client, Transport, connected
from runtime.store.durable import faults_of_the_host, remove_file, replace_file

_REF_NAME = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20
_LEFT = 3600.0
_MANIFEST_LIMIT = 4 << 20
OpenAt = Callable[[int], BinaryIO]


class Place(Protocol):
    """One place, for the length of `opened`."""

    def manifests(self) -> list[Manifest]:
        """What lies under the name: one manifest, or those of an index."""
        ...

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]: ...

    def has(self, digest: Digest) -> bool: ...

    def put(self, descriptor: Descriptor, open_at: OpenAt) -> None:
        """Bring a blob there unless it is there."""
        ...

    def name(self, manifest: Manifest) -> None:
        """Let the place's name be this manifest, whose blobs are there."""
        ...


def read_blob(place: Place, descriptor: Descriptor, limit: int) -> bytes:
    """A small blob as a whole."""
    if descriptor.size > limit:
        raise InvalidInput(f"blob {descriptor.digest} has {descriptor.size} bytes, more than {limit}")
    with place.blob(descriptor) as chunks:
        return b"".join(chunks)


# --- a registry ---------------------------------------------------------------------------------------------------


@contextmanager
def opened_registry(transport: Transport, reference: str, cancel: Cancel) -> Iterator[Place]:
    """The repository and tag (or digest) of a reference."""
    target = parse_reference(reference).or_latest()
    with connected(transport, target, cancel) as client:
        yield RegistryPlace(client, target, cancel)


class RegistryPlace:
    def __init__(self, client: Client, reference: Reference, cancel: Cancel) -> None:
        self._client, self._reference, self._cancel = client, reference, cancel

    def manifests(self) -> list[Manifest]:
        found = self._manifest(self._reference.selector)
        if isinstance(found, Manifest):
            return [found]
        parts = [self._manifest(each.digest) for each in found.manifests if _is_image(each)]
        return [each for each in parts if isinstance(each, Manifest)]

    def _manifest(self, selector: str) -> Manifest | Index:
        raw, media_type, _ = self._client.manifest(self._reference.path, selector)
        return _parsed(raw, media_type, self._reference.familiar)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        return self._client.blob(self._reference.path, descriptor.digest, size=descriptor.size)

    def has(self, digest: Digest) -> bool:
        return self._client.has_blob(self._reference.path, digest)

    def put(self, descriptor: Descriptor, open_at: OpenAt) -> None:
        self._client.push_blob(
            self._reference.path, descriptor, open_at, progress=lambda _: self._cancel.check()
        )

    def name(self, manifest: Manifest) -> None:
        self._client.put_manifest(
            self._reference.path, self._reference.selector, manifest.raw, manifest.media_type
        )


# --- a directory --------------------------------------------------------------------------------------------------


class DirectoryPlace:
    """An OCI image layout; `tag` or `digest` says which of its manifests is meant."""

    def __init__(
        self, path: str, tag: str = "latest", digest: str = "", *, cancel: Cancel, reset: bool = False
    ) -> None:
        self._path, self._tag, self._digest = path, tag, digest
        self._cancel, self._reset = cancel, reset

    # --- reading ---

    def manifests(self) -> list[Manifest]:
        chosen = [each for each in self._entries() if self._is_meant(each)]
        if not chosen:
            raise NotFound(f"no cache {self._digest or self._tag} in {self._path}")
        found = self._manifest(chosen[-1])
        if isinstance(found, Manifest):
            return [found]
        parts = [self._manifest(each) for each in found.manifests if _is_image(each)]
        return [each for each in parts if isinstance(each, Manifest)]

    def _is_meant(self, entry: Descriptor) -> bool:
        if self._digest:
            return entry.digest == self._digest
        return entry.annotations.get(_REF_NAME) == self._tag

    def _manifest(self, entry: Descriptor) -> Manifest | Index:
        return _parsed(read_blob(self, entry, _MANIFEST_LIMIT), entry.media_type, self._path)

    def _entries(self) -> list[Descriptor]:
        try:
            with open(os.path.join(self._path, "index.json"), "rb") as file:
                record = json.load(file)
            return [parse_descriptor(each) for each in record.get("manifests") or ()]
        except FileNotFoundError as error:
            raise NotFound(f"{self._path} holds no cache", hint="it has no index.json") from error
        except OSError as error:
            raise NotFound(f"cannot read {self._path}: {error.strerror}") from error
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidInput(f"{self._path}/index.json is damaged: {error}") from error

    def _file(self, digest: Digest) -> str:
        algorithm, encoded = split_digest(parse_digest(digest))
        return os.path.join(self._path, "blobs", algorithm, encoded)

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        path = self._file(descriptor.digest)
        if not os.path.isfile(path):
            raise NotFound(f"no blob {descriptor.digest} in {self._path}")
        with faults_of_the_host(f"cannot read {path}"), open(path, "rb") as file:
            yield self._verified(file, descriptor)

    def _verified(self, file: BinaryIO, descriptor: Descriptor) -> Iterator[bytes]:
        algorithm, encoded = split_digest(descriptor.digest)
        hashed, left = hashlib.new(algorithm), descriptor.size
        # One byte more than announced is enough to know that it is wrong.
        while chunk := file.read(min(_PIECE, left + 1)):
            self._cancel.check()
            hashed.update(chunk)
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left or hashed.hexdigest() != encoded:
            raise InvalidInput(f"blob {descriptor.digest} in {self._path} is damaged")

    # --- writing ---

    def has(self, digest: Digest) -> bool:
        return os.path.exists(self._file(digest))

    def put(self, descriptor: Descriptor, open_at: OpenAt) -> None:
        if self.has(descriptor.digest):
            return
        place = self._file(descriptor.digest)
        temporary = f"{place}.{secrets.token_hex(4)}"
        with faults_of_the_host(f"cannot write {place}"):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            try:
                with open_at(0) as source, open(temporary, "xb") as file:
                    for chunk in self._verified(source, descriptor):
                        file.write(chunk)
                os.rename(temporary, place)
            except BaseException:
                remove_file(temporary)
                raise

    def name(self, manifest: Manifest) -> None:
        import io

        entry = Descriptor(
            manifest.media_type, manifest.digest, len(manifest.raw), annotations={_REF_NAME: self._tag}
        )
        self.put(entry, lambda offset: io.BytesIO(manifest.raw[offset:]))
        with faults_of_the_host(f"cannot write {self._path}"), self._alone():
            replace_file(os.path.join(self._path, "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
            kept: list[Descriptor] = []
            if not self._reset and os.path.exists(os.path.join(self._path, "index.json")):
                kept = [each for each in self._entries() if each.annotations.get(_REF_NAME) != self._tag]
            index = make_index((*kept, entry))
            replace_file(os.path.join(self._path, "index.json"), index.raw)
            self._remove_leftovers()
            if self._reset:
                self._remove_others(manifest)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer of `index.json` at a time: others may name their tags in the same directory."""
        import fcntl

        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _remove_leftovers(self) -> None:
        """Blobs half written by who was killed. Nobody writes to one that did not grow for an hour, on whatever machine."""
        import time

        with os.scandir(os.path.join(self._path, "blobs", "sha256")) as entries:
            for entry in entries:
                if "." in entry.name and entry.stat(follow_symlinks=False).st_mtime < time.time() - _LEFT:
                    remove_file(entry.path)

    def _remove_others(self, manifest: Manifest) -> None:
        """`reset=true`: only what the manifest names stays."""
        needed = {self._file(each.digest) for each in (manifest.config, *manifest.layers)}
        needed.add(self._file(manifest.digest))
        directory = os.path.join(self._path, "blobs", "sha256")
        for name in os.listdir(directory):
            if (full := os.path.join(directory, name)) not in needed:
                remove_file(full)


def _is_image(entry: Descriptor) -> bool:
    """Not an attestation, whose platform is `unknown`."""
    fits = entry.media_type in media_types.MANIFESTS
    return fits and (entry.platform is None or entry.platform.os != "unknown")


def _parsed(raw: bytes, media_type: str, where: str) -> Manifest | Index:
    try:
        return parse_manifest(raw, media_type)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{where}: {error}") from error
