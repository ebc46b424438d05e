"""Reading a blob: it streams, survives broken connections, and is verified (FEATURES C-16).

A transfer that breaks off goes on where it stopped (`Range`), as often as it makes progress; a registry that ignores
the range sends everything again and what we have is skipped. The digest is checked here when the stream began at 0;
who resumes from an offset has the first part and checks the whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing

import httpx

from registry_client.connection import Connection
from registry_client.errors import Invalid, RateLimited, Unreachable
from registry_client.exchange import Request
from registry_client.faults import BrokenOff, broken_off
from registry_client.oci.digest import Digest, split_digest


class BlobReader:
    """An iterator over a blob's bytes from `offset` on. `size` is None where nobody told it."""

    def __init__(
        self,
        connection: Connection,
        request: Request,
        digest: Digest,
        *,
        offset: int = 0,
        size: int | None = None,
        verify: bool = True,
    ) -> None:
        self._connection = connection
        self._request = request
        self._digest = digest
        self._offset = offset
        self._size = size
        algorithm, self._hex = split_digest(digest)
        self._hash = hashlib.new(algorithm) if verify and offset == 0 else None
        self._fruitless = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            before = self._offset
            try:
                yield from self._part()
                self._check()
                return
            except (Unreachable, RateLimited) as error:
                self._fruitless = 0 if self._offset > before else self._fruitless + 1
                if self._fruitless >= self._connection.patience.attempts or not self._connection.may_help(
                    error
                ):
                    raise
                self._connection.pause(self._connection.patience.pause(self._fruitless + 1))

    def _part(self) -> Iterator[bytes]:
        if self._size is not None and self._offset == self._size and self._offset:
            return  # complete already; asking for an empty range is an error
        with closing(self._connection.send(self._ranged(), ok=(200, 206, 416))) as response:
            skip = self._to_skip(response)
            for data in self._raw(response):
                if skip >= len(data):
                    skip -= len(data)
                    continue
                fresh = data[skip:] if skip else data
                skip = 0
                self._take(fresh)
                yield fresh
            self._check_end(response)

    def _ranged(self) -> Request:
        if not self._offset:
            return self._request
        headers = {**self._request.headers, "Range": f"bytes={self._offset}-"}
        request = self._request
        return Request(
            request.method, request.url, request.what, request.scopes, headers, trusted=request.trusted
        )

    def _to_skip(self, response: httpx.Response) -> int:
        if response.status_code == 200:
            return self._offset
        content_range = response.headers.get("content-range", "")
        if response.status_code == 416:
            # Our offset is the blob's end, or it lies behind it: then what we have is no part of this blob.
            if content_range.strip() == f"bytes */{self._offset}":
                return 0
            raise Invalid(f"cannot {self._request.what}: it has fewer than {self._offset} bytes")
        match = re.match(r"bytes (\d+)-", content_range)
        if match is None or int(match[1]) != self._offset:
            raise Invalid(
                f"cannot {self._request.what}: asked for byte {self._offset}, got range {content_range!r}"
            )
        return 0

    def _raw(self, response: httpx.Response) -> Iterator[bytes]:
        if response.status_code == 416:
            return
        try:
            yield from response.iter_raw()
        except httpx.HTTPError as error:
            raise broken_off(self._request.what, error) from error

    def _take(self, data: bytes) -> None:
        self._offset += len(data)
        if self._size is not None and self._offset > self._size:
            raise Invalid(
                f"cannot {self._request.what}: it has more than the {self._size} bytes it should have"
            )
        if self._hash is not None:
            self._hash.update(data)

    def _check_end(self, response: httpx.Response) -> None:
        # Without Content-Length a cut looks like an end.
        if self._size is not None and self._offset < self._size and "content-length" not in response.headers:
            raise BrokenOff(f"cannot {self._request.what}: the connection broke off")

    def _check(self) -> None:
        if self._size is not None and self._offset != self._size:
            raise Invalid(
                f"cannot {self._request.what}: it has {self._offset} bytes and should have {self._size}"
            )
        if self._hash is not None and self._hash.hexdigest() != self._hex:
            raise Invalid(
                f"cannot {self._request.what}: its content is {self._hash.name}:{self._hash.hexdigest()}",
                hint="the registry or something on the way changed it; try again",
            )


class StartedBlob:
    """An iterator over a blob whose first chunk was fetched already, so that a missing one shows at once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._first: bytes | None = next(chunks, None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return next(self._chunks)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
