"""Serving calls: a table of paths, a thread for each call.

    methods = {"/moby.buildkit.v1.Control/Info": unary(InfoRequest, info)}
    serve(sock, methods)

A method raises GrpcError, or one of our own errors, which `translate` puts into words of gRPC. Anything else is a bug,
logged and answered as an internal error.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from runtime.errors import PipeError
from runtime.grpc.connection import Connection
from runtime.grpc.protobuf import Message
from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Stream

log = logging.getLogger("pipe.grpc")

Method = Callable[[Stream], None]
Translate = Callable[[PipeError], GrpcError]
Request = TypeVar("Request", bound=Message)


def unary(request: type[Request], answer: Callable[[Request, Stream], Message]) -> Method:
    """One message in, one out."""

    def method(stream: Stream) -> None:
        stream.write(answer(_only(request, stream), stream))

    return method


def streaming(request: type[Request], answers: Callable[[Request, Stream], Iterable[Message]]) -> Method:
    """One message in, any number out."""

    def method(stream: Stream) -> None:
        for answer in answers(_only(request, stream), stream):
            stream.write(answer)

    return method


def _only(request: type[Request], stream: Stream) -> Request:
    found = stream.read(request)
    if found is None:
        raise GrpcError(Code.INTERNAL, f"{stream.path} wants a {request.__name__}, and got nothing")
    return found


def serve(
    sock: socket.socket, methods: Mapping[str, Method], data: bytes = b"", translate: Translate | None = None
) -> None:
    """Answer calls until the connection ends. The socket stays the caller's to close."""

    def begin(stream: Stream) -> None:
        threading.Thread(
            target=_answer, args=(stream, methods, translate or plain), name="grpc", daemon=True
        ).start()

    connection = Connection(sock, begin, data)
    connection.start()
    connection.run()


def _answer(stream: Stream, methods: Mapping[str, Method], translate: Translate) -> None:
    error: GrpcError | None = None
    try:
        method = methods.get(stream.path)
        if method is None:
            raise GrpcError(Code.UNIMPLEMENTED, f"unknown method {stream.path}")
        method(stream)
    except GrpcError as mistake:
        error = mistake
    except PipeError as mistake:
        error = translate(mistake)
    except Exception:
        log.exception("%s", stream.path)
        error = GrpcError(Code.INTERNAL, f"{stream.path} failed; the daemon's log says why")
    log.info('grpc "%s" %s', stream.path, "OK" if error is None else error)
    try:
        stream.finish(error)
    except GrpcError:
        pass  # the client is gone: nobody is left to be told


def plain(error: PipeError) -> GrpcError:
    """An error of ours where nobody has better words."""
    return GrpcError(Code.UNKNOWN, f"{error}{f' ({error.hint})' if error.hint else ''}")
