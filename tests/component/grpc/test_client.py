"""Our gRPC client, as it calls the services of a session. The other side is our server, which h2 judges beside this."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from builder.control.messages.common import Bytes, Empty
from runtime.grpc.client import call, open_stream
from runtime.grpc.connection import Connection
from runtime.grpc.server import Method, serve, streaming, unary
from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Stream

WAIT = 20.0


@contextmanager
def connected(methods: Mapping[str, Method]) -> Iterator[Connection]:
    """A client's connection; the server's end is closed with the block."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    threads = [
        threading.Thread(target=serve, args=(theirs, methods)),
        threading.Thread(target=connection.run),
    ]
    connection.start()
    for thread in threads:
        thread.start()
    try:
        yield connection
    finally:
        connection.close()
        for thread in threads:
            thread.join(WAIT)
        ours.close()
        theirs.close()
    assert not any(thread.is_alive() for thread in threads)


def test_a_question_gets_its_answer_or_its_error() -> None:
    def pick(request: Bytes, stream: Stream) -> Bytes:
        if request.data == b"none":
            raise GrpcError(Code.NOT_FOUND, "no such secret: größer")
        return Bytes(request.data * 2)

    with connected({"/t.T/Pick": unary(Bytes, pick)}) as connection:
        assert call(connection, "/t.T/Pick", Bytes(b"ab"), Bytes).data == b"abab"
        with pytest.raises(GrpcError) as caught:
            call(connection, "/t.T/Pick", Bytes(b"none"), Bytes)
        assert (caught.value.code, caught.value.message) == (Code.NOT_FOUND, "no such secret: größer")
        with pytest.raises(GrpcError) as caught:
            call(connection, "/t.T/Other", Empty(), Empty)
        assert caught.value.code is Code.UNIMPLEMENTED


def test_messages_go_both_ways_until_both_have_ended() -> None:
    def both(stream: Stream) -> None:
        for piece in stream.messages(Bytes):
            stream.write(Bytes(piece.data.upper()))
        stream.write(Bytes(b"END"))

    with connected({"/t.T/Both": both}) as connection:
        stream = open_stream(connection, "/t.T/Both")
        for word in (b"a", b"b" * (3 << 20)):
            stream.write(Bytes(word))
            answer = stream.read(Bytes)
            assert answer is not None and answer.data == word.upper()
        stream.end_sending()
        assert [piece.data for piece in stream.messages(Bytes)] == [b"END"]


def test_a_server_that_has_had_enough_ends_our_sending_too() -> None:
    def enough(stream: Stream) -> None:
        stream.receive()
        raise GrpcError(Code.RESOURCE_EXHAUSTED, "enough")

    with connected({"/t.T/Enough": enough}) as connection:
        stream = open_stream(connection, "/t.T/Enough")
        with pytest.raises(GrpcError, match="enough"):
            for _ in range(1000):
                stream.write(Bytes(b"x" * (64 << 10)))
        with pytest.raises(GrpcError, match="enough"):
            stream.receive()
        stream.end_sending()  # is nothing any more, and no mistake


def test_a_question_that_is_not_answered_in_time_is_given_up() -> None:
    gone = threading.Event()

    def never(stream: Stream) -> None:
        with stream.cancel.on_cancel(gone.set):
            assert gone.wait(WAIT)

    with connected({"/t.T/Never": never}) as connection:
        with pytest.raises(GrpcError) as caught:
            call(connection, "/t.T/Never", Empty(), Empty, timeout=0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert gone.wait(WAIT)  # the other side was told


def test_who_waits_when_the_connection_ends_is_told() -> None:
    asked = threading.Event()

    def never(stream: Stream) -> None:
        ended = threading.Event()
        with stream.cancel.on_cancel(ended.set):
            asked.set()
            assert ended.wait(WAIT)

    failed: list[GrpcError] = []

    def ask(connection: Connection) -> None:
        try:
            call(connection, "/t.T/Never", Empty(), Empty)
        except GrpcError as error:
            failed.append(error)

    with connected({"/t.T/Never": never}) as connection:
        thread = threading.Thread(target=ask, args=(connection,))
        thread.start()
        assert asked.wait(WAIT)
        connection.close()
        thread.join(WAIT)
        assert not thread.is_alive()
        with pytest.raises(GrpcError):
            open_stream(connection, "/t.T/Never")
    assert [error.code for error in failed] == [Code.UNAVAILABLE]


def test_many_threads_share_a_connection() -> None:
    def count(request: Bytes, stream: Stream) -> Iterator[Bytes]:
        for _ in range(50):
            yield request

    found: dict[int, list[bytes]] = {}

    def ask(connection: Connection, index: int) -> None:
        stream = open_stream(connection, "/t.T/Count")
        stream.write(Bytes(b"%d" % index * 5000))
        stream.end_sending()
        found[index] = [piece.data for piece in stream.messages(Bytes)]

    with connected({"/t.T/Count": streaming(Bytes, count)}) as connection:
        threads = [threading.Thread(target=ask, args=(connection, index)) for index in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert found == {index: [b"%d" % index * 5000] * 50 for index in range(12)}
