"""Asking the other side of a connection: one message in and one out, or a stream."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TypeVar

from runtime.grpc.connection import Connection
from runtime.grpc.protobuf import Message
from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Stream

Answer = TypeVar("Answer", bound=Message)
Metadata = Iterable[tuple[str, str]]


def open_stream(connection: Connection, path: str, metadata: Metadata = ()) -> Stream:
    """Begin a call. Whoever does breaks it off or reads it to the end."""
    head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "pipe"),
    ]
    return connection.open([*head, *metadata])


def call(
    connection: Connection,
    path: str,
    request: Message,
    answer: type[Answer],
    *,
    metadata: Metadata = (),
    timeout: float | None = None,
) -> Answer:
    """Ask, and wait for the answer; `timeout` in seconds."""
    if timeout is not None:
        metadata = [*metadata, ("grpc-timeout", f"{int(timeout * 1000)}m")]
    stream = open_stream(connection, path, metadata)
    try:
        stream.write(request)
        stream.end_sending()
        found = stream.read(answer, timeout)
        if found is None or stream.receive(timeout) is not None:
            raise GrpcError(Code.INTERNAL, f"{path} did not answer with one message")
        return found
    except BaseException:
        stream.break_off()
        raise


def binary(value: bytes) -> str:
    """A value of a header whose name ends in `-bin`."""
    return base64.b64encode(value).rstrip(b"=").decode()
