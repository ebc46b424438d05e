"""Requests and responses as handlers see them. Values; the one that acts is the request's body, which reads the socket."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import IO, Any, Protocol


class HttpError(Exception):
    """What a handler raises to answer with a status; how it is spelled is the server's `on_error`."""

    def __init__(
        self, status: int, message: str = "", *, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message or HTTPStatus(status).phrase.lower())
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


class Disconnected(Exception):
    """The client went away, or stopped sending in the middle of a body."""


class BodyReader(Protocol):
    """The request's body. It can be read once; reading asks a waiting client to go on (100 Continue)."""

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, limit: int) -> bytes:
        """All of it; HttpError 413 when it has more than `limit` bytes."""
        ...


# Called with what to do when the client goes away; it is done, by another thread, only within the block.
WhenGone = Callable[[Callable[[], None]], AbstractContextManager[None]]


def _never_gone(callback: Callable[[], None]) -> AbstractContextManager[None]:
    return nullcontext()


class Headers:
    """Header fields; names compare without case, several of one name are joined as RFC 9110 5.3 allows."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = [(name.lower(), value) for name, value in fields]

    def get(self, name: str, default: str = "") -> str:
        found = self.all(name)
        return ", ".join(found) if found else default

    def all(self, name: str) -> list[str]:
        return [value for known, value in self._fields if known == name.lower()]

    def __contains__(self, name: str) -> bool:
        return any(known == name.lower() for known, _ in self._fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)


@dataclass(frozen=True)
class Request:
    """`path` is decoded; `params` are what the router took from it."""

    method: str
    target: str
    headers: Headers
    body: BodyReader
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""  # "127.0.0.1:4711", "" on a unix socket
    http_version: str = "1.1"
    when_gone: WhenGone = _never_gone

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        return urllib.parse.parse_qs(urllib.parse.urlsplit(self.target).query, keep_blank_values=True)

    def argument(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]

    @property
    def content_length(self) -> int | None:
        text = self.headers.get("content-length")
        return int(text) if text.isdigit() else None


@dataclass(frozen=True, slots=True)
class FileBody:
    """A piece of an open file; the server sends it with sendfile(2) and closes the file."""

    file: IO[bytes]
    offset: int
    length: int


# Called with the socket and what the client had already sent behind its request; the socket is closed afterwards.
Takeover = Callable[[Any, bytes], None]


@dataclass(frozen=True, slots=True)
class Response:
    """`body` as an iterator is sent in chunks unless the headers have Content-Length; it is closed in any case.

    With `takeover` the head is sent and the socket handed out raw: attach, exec, protocol upgrades.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody | Iterator[bytes] = b""
    takeover: Takeover | None = None

    def close(self) -> None:
        """Release what the body holds, when it is not sent."""
        if isinstance(self.body, FileBody):
            self.body.file.close()
        elif not isinstance(self.body, bytes) and hasattr(self.body, "close"):
            self.body.close()


def json_response(record: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, body)


def file_response(file: IO[bytes], size: int, request: Request, headers: Mapping[str, str]) -> Response:
    """A whole file, or the part `Range` asks for (RFC 9110 14.2); takes the file over."""
    sent = {"Accept-Ranges": "bytes", **headers}
    wanted = request.headers.get("range")
    # If-Range asks for the range only while the thing is what it was.
    unchanged = request.headers.get("if-range", headers.get("ETag", "")) == headers.get("ETag", "")
    part = parse_range(wanted, size) if wanted and unchanged and request.method == "GET" else None
    if part is None:
        return Response(200, {**sent, "Content-Length": str(size)}, FileBody(file, 0, size))
    start, end = part
    if start >= end:
        file.close()
        raise HttpError(
            416, f"range {wanted!r} of {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    sent |= {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": str(end - start)}
    return Response(206, sent, FileBody(file, start, end - start))


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """`bytes=0-99`, `bytes=100-` or `bytes=-5` as (start, end); None for what is to be ignored, start >= end for 416."""
    unit, _, spec = text.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or "," in spec:
        return None  # several ranges may be answered with the whole
    if not first:
        return (
            (max(size - int(last), 0), size)
            if last.isdigit() and int(last)
            else ((size, size) if last == "0" else None)
        )
    if not first.isdigit() or (last and (not last.isdigit() or int(last) < int(first))):
        return None
    return int(first), min(int(last) + 1, size) if last else size
