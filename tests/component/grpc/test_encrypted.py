"""gRPC over TLS: both directions at once on one connection."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.control.messages.common import Bytes
from runtime.grpc.client import open_stream
from runtime.grpc.connection import Connection
from runtime.grpc.encrypted import plain
from runtime.grpc.server import serve
from runtime.grpc.stream import Stream
from tests.support.certificates import make_certificates

WAIT = 30.0


@contextmanager
def encrypted(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of a TLS connection."""
    made = make_certificates(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    ours, theirs = socket.socketpair()
    wrapped: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: wrapped.append(server.wrap_socket(theirs, server_side=True)))
    thread.start()
    with client.wrap_socket(ours) as one:
        thread.join(WAIT)
        with wrapped[0] as other:
            yield one, other


def echo(stream: Stream) -> None:
    for piece in stream.messages(Bytes):
        stream.write(piece)


def test_what_goes_both_ways_at_once_arrives(tmp_path: Path) -> None:
    pieces = [os.urandom(50_000) for _ in range(100)]
    got: list[bytes] = []

    def answer(sock: ssl.SSLSocket) -> None:
        with plain(sock) as line:
            serve(line, {"/t.T/Echo": echo})

    with encrypted(tmp_path) as (one, other):
        serving = threading.Thread(target=answer, args=(other,))
        serving.start()
        with plain(one) as line:
            connection = Connection(line)
            connection.start()
            reading = threading.Thread(target=connection.run)
            reading.start()
            stream = open_stream(connection, "/t.T/Echo")

            def take() -> None:
                got.extend(piece.data for piece in stream.messages(Bytes))

            taking = threading.Thread(target=take)
            taking.start()
            for piece in pieces:
                stream.write(Bytes(piece))
            stream.end_sending()
            taking.join(WAIT)
            connection.close()
            reading.join(WAIT)
        serving.join(WAIT)
        assert not serving.is_alive()
    assert got == pieces


@pytest.mark.parametrize("how", ["shut", "close"])
def test_the_end_of_either_side_ends_the_other(tmp_path: Path, how: str) -> None:
    with encrypted(tmp_path) as (one, other), plain(other) as line:
        one.sendall(b"last words")
        if how == "shut":
            one.shutdown(socket.SHUT_RDWR)
        else:
            one.close()
        line.settimeout(WAIT)
        assert line.recv(100) == b"last words"
        assert line.recv(100) == b""


def test_a_socket_that_is_not_encrypted_is_taken_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, plain(ours) as line:
        assert line is ours
