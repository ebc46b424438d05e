"""How a call ended: the codes of gRPC, the error both sides raise, and how the two are written as trailers.

The details of an error (google.rpc.Status) travel in `grpc-status-details-bin`; who made them knows what they mean.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from runtime.grpc.protobuf import DecodeError, Message, integer, many, raw, text


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(slots=True)
class Any(Message):
    """google.protobuf.Any: a message with the name of its type."""

    type_url: str = text(1)
    value: bytes = raw(2)


@dataclass(slots=True)
class Status(Message):
    """google.rpc.Status."""

    code: int = integer(1)
    message: str = text(2)
    details: list[Any] = many(3, lambda: Any)


class GrpcError(Exception):
    """A call that ended with something else than OK."""

    def __init__(self, code: Code, message: str, details: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, tuple(details)

    def __str__(self) -> str:
        return f"{self.message} ({self.code.name.lower()})"


def trailers_of(error: GrpcError | None) -> list[tuple[str, str]]:
    """The trailers that end a stream."""
    if error is None:
        return [("grpc-status", "0")]
    found = [("grpc-status", str(int(error.code))), ("grpc-message", _quoted(error.message))]
    if error.details:
        status = Status(int(error.code), error.message, list(error.details)).encode()
        found.append(("grpc-status-details-bin", base64.b64encode(status).rstrip(b"=").decode()))
    return found


def error_of(trailers: Mapping[str, str]) -> GrpcError | None:
    """What trailers say; None is a good end. Without a status the other side did not speak gRPC to the end."""
    if "grpc-status" not in trailers:
        http = trailers.get(":status", "")
        return GrpcError(Code.UNKNOWN, f"no status at the end of the stream (http {http or 'none'})")
    try:
        code = Code(int(trailers["grpc-status"]))
    except ValueError:
        code = Code.UNKNOWN
    if code is Code.OK:
        return None
    message = urllib.parse.unquote(trailers.get("grpc-message", ""))
    return GrpcError(code, message, _details(trailers.get("grpc-status-details-bin", "")))


def _details(encoded: str) -> list[Any]:
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
        return Status.decode(data).details
    except (binascii.Error, DecodeError):
        return []


def _quoted(message: str) -> str:
    """Percent-encoded: everything but printable ASCII, and the percent sign itself."""
    data = message.encode("utf-8", "replace")
    return re.sub(rb"[^ -~]|%", lambda found: b"%%%02X" % found[0][0], data).decode("ascii")
