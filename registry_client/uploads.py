"""Sending a blob (FEATURES C-17): not at all if it is there, by mount, in one PUT, or in chunks.

A small blob goes in one PUT. A larger one goes in PATCH requests, one for all of it unless chunks are asked for, and
an empty PUT closes it. When a connection breaks or the registry answers 416 it is asked how much it has and the
transfer goes on there; a session it has forgotten is begun anew. Every answer may name the next Location, relative
or absolute, whose query belongs to the registry and is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import BinaryIO

import httpx

from registry_client.auth import repository_scope
from registry_client.connection import Connection
from registry_client.errors import (
    Denied,
    Invalid,
    NotFound,
    RateLimited,
    RegistryError,
    Rejected,
    Unauthorized,
    Unreachable,
)
from registry_client.exchange import Request
from registry_client.faults import join
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest

OpenAt = Callable[[int], BinaryIO]
Progress = Callable[[int], None]  # bytes sent so far

_IN_ONE_PUT = 1 << 20
_READ = 256 << 10


class Pushed(StrEnum):
    EXISTS = "exists"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


class Upload:
    """One blob on its way to one repository."""

    def __init__(
        self,
        connection: Connection,
        repository: str,
        descriptor: Descriptor,
        open_at: OpenAt,
        *,
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._connection = connection
        self._repository = repository
        self._blob = descriptor
        self._open_at = open_at
        self._chunk = chunk
        self._progress = progress or (lambda current: None)
        self._scopes = (repository_scope(repository, "pull", "push"),)
        self._what = f"push blob {descriptor.digest[:19]} to {connection.host}/{repository}"
        self._location = ""
        self._offset = 0
        self._confirmed = 0  # what the registry said it has

    def run(self, mount_from: str = "") -> Pushed:
        if self._begin(mount_from):
            return Pushed.MOUNTED
        attempt = 0
        while True:
            before = self._confirmed
            try:
                self._send()
                return Pushed.UPLOADED
            except (Unreachable, RateLimited, Rejected, NotFound) as error:
                attempt = 1 if self._confirmed > before else attempt + 1
                if self._recovered(error, attempt):
                    return Pushed.UPLOADED

    def _begin(self, mount_from: str = "") -> bool:
        """Open a session; True when the registry mounted the blob instead."""
        url, scopes = f"{self._repository}/blobs/uploads/", self._scopes
        if mount_from:
            mounting = (*scopes, repository_scope(mount_from, "pull"))
            request = self._request("POST", f"{url}?mount={self._blob.digest}&from={mount_from}", mounting)
            try:
                response, _ = self._connection.call(request, ok=(201, 202))
            except (Denied, Unauthorized, NotFound, Rejected):
                # No right to read the other repository is no reason not to upload.
                return self._begin()
            if response.status_code == 201:
                return True
        else:
            response, _ = self._connection.call(self._request("POST", url, scopes), ok=(202,))
        self._offset = self._confirmed = 0
        self._next_location(response)
        least = response.headers.get("oci-chunk-min-length", "")
        if self._chunk and least.isdigit():
            self._chunk = max(self._chunk, int(least))
        return False

    def _send(self) -> None:
        if self._chunk is None and self._offset == 0 and self._blob.size <= _IN_ONE_PUT:
            self._close(self._body(0, self._blob.size), self._blob.size)
            return
        while self._offset < self._blob.size:
            end = self._blob.size if self._chunk is None else min(self._offset + self._chunk, self._blob.size)
            self._patch(self._offset, end)
        self._close(lambda: b"", 0)

    def _patch(self, start: int, end: int) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Range": f"{start}-{end - 1}",
        }
        response = self._once("PATCH", self._location, headers, self._body(start, end), ok=(202, 201, 204))
        self._next_location(response)
        self._offset = self._confirmed = _received(response, end)

    def _close(self, body: Callable[[], bytes | Iterator[bytes]], size: int) -> None:
        separator = "&" if "?" in self._location else "?"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._once(
            "PUT", f"{self._location}{separator}digest={self._blob.digest}", headers, body, ok=(201, 204)
        )
        self._progress(self._blob.size)

    def _once(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Callable[[], bytes | Iterator[bytes]],
        ok: tuple[int, ...],
    ) -> httpx.Response:
        # Not repeated blindly: after a failure only the registry knows how much of the body it kept.
        request = Request(method, url, self._what, self._scopes, headers, body)
        response, _ = self._connection.call_once(request, ok)
        return response

    def _body(self, start: int, end: int) -> Callable[[], Iterator[bytes]]:
        def stream() -> Iterator[bytes]:
            position = start
            with self._open_at(start) as file:
                while position < end:
                    data = file.read(min(_READ, end - position))
                    if not data:
                        raise Invalid(
                            f"cannot {self._what}: it ended after {position} of {self._blob.size} bytes"
                        )
                    position += len(data)
                    yield data
                    self._progress(position)

        return stream

    def _recovered(self, error: RegistryError, attempt: int) -> bool:
        """Get ready to go on after `error`; True when the blob arrived and only the answer was lost."""
        patience = self._connection.patience
        out_of_step = error.status in (404, 416)
        if attempt >= patience.attempts or not (self._connection.may_help(error) or out_of_step):
            raise error
        if not out_of_step or attempt > 1:
            self._connection.pause(
                patience.pause(attempt) if error.retry_after is None else error.retry_after
            )
        if has_blob(self._connection, self._repository, self._blob.digest, self._scopes, self._what):
            return True
        if error.status == 416 and attempt > 1:
            self._begin()  # "0-0" may mean one byte or none: two tries in, a new session is the way out
        else:
            self._find_offset()
        return False

    def _find_offset(self) -> None:
        """Ask how much the registry has; begin anew when it knows nothing of the session."""
        try:
            response, _ = self._connection.call(
                self._request("GET", self._location, self._scopes), (204, 200)
            )
        except (NotFound, Rejected):
            self._begin()
            return
        self._next_location(response)
        self._offset = _received(response, 0)
        if self._offset > self._blob.size:
            self._begin()
            return
        self._confirmed = max(self._confirmed, self._offset)

    def _next_location(self, response: httpx.Response) -> None:
        location = response.headers.get("location", "")
        if location:
            self._location = str(join(response.url, location, self._what))
        elif not self._location:
            raise Invalid(f"cannot {self._what}: the registry named no upload location")

    def _request(self, method: str, url: str, scopes: tuple[str, ...]) -> Request:
        headers = {"Content-Length": "0"} if method == "POST" else {}
        return Request(method, url, self._what, scopes, headers)


def has_blob(
    connection: Connection, repository: str, digest: Digest, scopes: tuple[str, ...], what: str
) -> bool:
    """Whether the registry has the blob in this repository."""
    request = Request("HEAD", f"{repository}/blobs/{digest}", what, scopes)
    response, _ = connection.call(request, ok=(200, 404))
    return response.status_code == 200


def _received(response: httpx.Response, otherwise: int) -> int:
    """How many bytes the registry has by its `Range: 0-N`, whose end is inclusive; distribution says `0-0` for none."""
    match = re.fullmatch(r"(?:bytes=)?0-(-?\d+)", response.headers.get("range", "").strip())
    if match is None:
        return otherwise
    last = int(match[1])
    return last + 1 if last > 0 or otherwise == 1 else 0
