"""Blobs by digest: `blobs/sha256/<hex>`, as in an OCI image layout.

A blob is there, whole and verified, or it is not. What is being received lies under `ingest/` and may be continued by
a later process when the writer was given a resume key. Knows nothing of manifests and layers.
"""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from registry_client.oci.digest import Digest, digest_of, split_digest
from runtime.errors import InvalidInput, NotFound
from runtime.store.durable import faults_of_the_host, remove_file, sync_directory, write_all
from runtime.store.owners import own_token

_PIECE = 1 << 20


class Content:
    """The blobs of one store. Safe to use from many threads and processes."""

    def __init__(self, root: str) -> None:
        self.directory = os.path.join(root, "blobs")
        self.ingest = os.path.join(root, "ingest")

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        algorithm, encoded = split_digest(digest)
        return os.path.join(self.directory, algorithm, encoded)

    def has(self, digest: Digest) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: Digest) -> int:
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: Digest) -> BinaryIO:
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """The whole blob, verified; refuses one larger than `limit`."""
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidInput(f"blob {digest} is larger than {limit} bytes")
        if not verify(digest, data):
            raise InvalidInput(
                f"blob {digest} is damaged on disk", hint="remove the image and pull or build it again"
            )
        return data

    def put(self, data: bytes) -> Digest:
        """Store `data`; a no-op when it is there."""
        digest = digest_of(data)
        if not self.has(digest):
            with self.writer(digest, len(data)) as writer:
                writer.write(data)
                writer.commit()
        return digest

    def writer(self, expected: Digest | None = None, size: int | None = None, resume_key: str = "") -> Writer:
        """Receive a blob. With a `resume_key`, what an earlier writer left under it is continued at `.offset`."""
        with faults_of_the_host(f"cannot write below {self.ingest}"):
            return Writer(self, expected, size, resume_key)

    def digests(self) -> list[Digest]:
        """All blobs."""
        found = []
        for algorithm in sorted(os.listdir(self.directory)):
            names = sorted(os.listdir(os.path.join(self.directory, algorithm)))
            found += [Digest(f"{algorithm}:{name}") for name in names]
        return found

    def set_aside(self, digest: Digest) -> str:
        """Take a blob from its place at once, to be deleted later; its new path, "" when it is not there."""
        target = os.path.join(self.ingest, f"{os.urandom(8).hex()}.{own_token()}")
        try:
            os.rename(self.path(digest), target)
        except FileNotFoundError:
            return ""
        return target

    def remove(self, digest: Digest) -> int:
        """Remove a blob, if it is there; the bytes freed."""
        path = self.path(digest)
        try:
            size = os.stat(path).st_blocks * 512
        except FileNotFoundError:
            return 0
        return size if remove_file(path) else 0


class Writer:
    """One blob on its way in. A context manager: without `commit` a resumable one stays, any other is dropped."""

    def __init__(self, content: Content, expected: Digest | None, size: int | None, resume_key: str) -> None:
        self._content, self._expected, self._size = content, expected, size
        self._resumable = False
        self._descriptor, self._path = -1, ""
        if resume_key:
            self._open_shared(os.path.join(content.ingest, hashlib.sha256(resume_key.encode()).hexdigest()))
        if self._descriptor < 0:
            name = f"{os.urandom(8).hex()}.{own_token()}"
            self._path = os.path.join(content.ingest, name)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hash = hashlib.new(split_digest(expected)[0] if expected else "sha256")
        self.offset = 0
        self._read_what_is_there()

    def _open_shared(self, path: str) -> None:
        """Take the partial file if no other writer has it."""
        import fcntl

        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have renamed or removed it between our open and our lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                self._descriptor, self._path, self._resumable = descriptor, path, True
                return
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)

    def _read_what_is_there(self) -> None:
        while chunk := os.read(self._descriptor, _PIECE):
            self._hash.update(chunk)
            self.offset += len(chunk)
        if self._size is not None and self.offset > self._size:
            self.restart()

    def reading(self) -> int:
        """A descriptor to read what is written from, beside the writing; it stays good after `commit`."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def restart(self) -> None:
        """Forget what was received: the sender does not continue, or what we have is wrong."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.new(self._hash.name)
        self.offset = 0

    def write(self, chunk: bytes | memoryview) -> int:
        if self._size is not None and self.offset + len(chunk) > self._size:
            self.restart()
            raise InvalidInput(f"more than the {self._size} bytes announced for {self._expected or 'a blob'}")
        with faults_of_the_host(f"cannot write {self._path}"):
            try:
                write_all(self._descriptor, chunk)
            except OSError:
                # A full disk most likely: what cannot be completed must not keep it full.
                self.restart()
                raise
        self._hash.update(chunk)
        self.offset += len(chunk)
        return len(chunk)

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest(f"{self._hash.name}:{self._hash.hexdigest()}")

    def commit(self) -> Digest:
        """Verify size and digest, get the bytes to the disk, give them their name."""
        digest = self.digest
        self._check(digest)
        target = self._content.path(digest)
        with faults_of_the_host(f"cannot store blob {digest}"):
            if os.path.exists(target):
                remove_file(self._path)
            else:
                os.fsync(self._descriptor)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.rename(self._path, target)
                sync_directory(os.path.dirname(target))
        self._close()
        return digest

    def _check(self, digest: Digest) -> None:
        if self._size is not None and self.offset < self._size:
            raise InvalidInput(
                f"got {self.offset} of the {self._size} bytes announced for {self._expected or 'a blob'}"
            )
        if self._expected is not None and digest != self._expected:
            self.restart()
            raise InvalidInput(f"content does not match its digest: want {self._expected}, got {digest}")

    def discard(self) -> None:
        """Drop the partial file, also a resumable one."""
        if self._descriptor >= 0:
            remove_file(self._path)
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._resumable and self.offset:
            self._close()
        else:
            self.discard()


def verify(digest: Digest, data: bytes) -> bool:
    algorithm, encoded = split_digest(digest)
    return hashlib.new(algorithm, data).hexdigest() == encoded


def _missing(digest: Digest) -> NotFound:
    return NotFound(f"no blob {digest} in the store", hint="pull the image again")
