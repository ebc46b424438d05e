"""Our gRPC server, spoken to by h2 with frames written by hand: what it promises does not rest on our own client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from builder.control.messages.common import Bytes
from runtime.errors import NotFound, Unsupported
from runtime.grpc.framing import MOST
from runtime.grpc.server import Method, serve, streaming, unary
from runtime.grpc.status import Any as Detail
from runtime.grpc.status import Code, GrpcError, error_of
from runtime.grpc.stream import Stream

WAIT = 20.0


@dataclass
class Answer:
    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.data):
            size = int.from_bytes(self.data[at + 1 : at + 5])
            found.append(self.data[at + 5 : at + 5 + size])
            at += 5 + size
        return found

    @property
    def error(self) -> GrpcError | None:
        return error_of(self.trailers or self.headers)


class Client:
    """One connection of h2's own; nothing of it is ours. `window` is what it lets the server send ahead."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(WAIT)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.answers: dict[int, Answer] = {}
        self.gone = False
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def begin(self, path: str, *more: tuple[str, str], end: bool = False) -> int:
        number = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        self.h2.send_headers(
            number, [*head, ("content-type", "application/grpc"), ("te", "trailers"), *more], end
        )
        self.answers[number] = Answer()
        self.flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Raw bytes of a stream, as far as the server's windows allow at a time."""
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.take()
                continue
            self.h2.send_data(number, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.h2.end_stream(number)
            self.flush()

    def take(self) -> None:
        """What comes next."""
        data = self.sock.recv(1 << 16)
        self.gone = not data
        for event in self.h2.receive_data(data):
            number = getattr(event, "stream_id", None)
            answer = self.answers.get(number or 0)
            if answer is None:
                continue
            match event:
                case h2.events.ResponseReceived():
                    answer.headers = dict(event.headers)  # type: ignore[arg-type]
                case h2.events.TrailersReceived():
                    answer.trailers = dict(event.headers)  # type: ignore[arg-type]
                case h2.events.DataReceived():
                    answer.data += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, number)
                case h2.events.StreamEnded():
                    answer.ended = True
                case h2.events.StreamReset():
                    answer.reset = event.error_code
        self.flush()

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert not self.gone, "the server closed the connection"
            self.take()

    def call(self, path: str, message: bytes = b"", *more: tuple[str, str]) -> Answer:
        number = self.begin(path, *more)
        self.send(number, b"\0" + len(message).to_bytes(4) + message, end=True)
        self.until(lambda: self.answers[number].ended)
        return self.answers[number]


@contextmanager
def connected(methods: Mapping[str, Method]) -> Iterator[Client]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(ours, methods))
    thread.start()
    try:
        with theirs:
            yield Client(theirs)
    finally:
        thread.join(WAIT)
        ours.close()
    assert not thread.is_alive()


def echo(request: Bytes, stream: Stream) -> Bytes:
    return Bytes(request.data[::-1])


def test_one_message_in_and_one_out() -> None:
    with connected({"/t.T/Echo": unary(Bytes, echo)}) as client:
        answer = client.call("/t.T/Echo", Bytes(b"abc").encode())
    assert answer.headers[":status"] == "200" and answer.headers["content-type"] == "application/grpc"
    assert [Bytes.decode(each).data for each in answer.messages] == [b"cba"]
    assert answer.trailers["grpc-status"] == "0"


def test_an_unknown_method_is_told_without_a_body() -> None:
    with connected({}) as client:
        answer = client.call("/t.T/None")
    assert answer.headers["grpc-status"] == "12" and "/t.T/None" in answer.headers["grpc-message"]
    assert answer.data == b""


@pytest.mark.parametrize("text", ["plain", "100% übel\nzwei Zeilen", "a%41"])
def test_an_error_has_its_code_its_text_and_its_details(text: str) -> None:
    def fail(request: Bytes, stream: Stream) -> Bytes:
        raise GrpcError(Code.NOT_FOUND, text, [Detail("some/type", b"\x00\xff")])

    with connected({"/t.T/Fail": unary(Bytes, fail)}) as client:
        answer = client.call("/t.T/Fail")
    error = answer.error
    assert error is not None and (error.code, error.message) == (Code.NOT_FOUND, text)
    assert [(each.type_url, each.value) for each in error.details] == [("some/type", b"\x00\xff")]
    assert answer.headers.get("grpc-message", "").isascii()


def test_an_error_of_ours_and_a_bug_are_told_apart() -> None:
    def ours(request: Bytes, stream: Stream) -> Bytes:
        raise NotFound("no such thing", hint="look elsewhere")

    def bug(request: Bytes, stream: Stream) -> Bytes:
        raise KeyError("internal detail")

    with connected({"/t.T/Ours": unary(Bytes, ours), "/t.T/Bug": unary(Bytes, bug)}) as client:
        told, hidden = client.call("/t.T/Ours").error, client.call("/t.T/Bug").error
    assert told is not None and told.message == "no such thing (look elsewhere)"
    assert hidden is not None and hidden.code is Code.INTERNAL and "internal detail" not in hidden.message


def test_an_error_in_the_middle_of_a_stream_follows_what_was_sent() -> None:
    def some(request: Bytes, stream: Stream) -> Iterator[Bytes]:
        yield Bytes(b"one")
        raise Unsupported("no more")

    with connected({"/t.T/Some": streaming(Bytes, some)}) as client:
        answer = client.call("/t.T/Some")
    assert len(answer.messages) == 1
    assert answer.error is not None and answer.error.message == "no more"


def test_a_message_larger_than_every_window_goes_both_ways() -> None:
    data = bytes(range(256)) * (20 << 10)  # 5 MiB; a client's window is 64 KiB, ours 1 MiB
    with connected({"/t.T/Echo": unary(Bytes, echo)}) as client:
        answer = client.call("/t.T/Echo", Bytes(data).encode())
    assert Bytes.decode(answer.messages[0]).data == data[::-1]


def test_a_reader_that_is_slow_holds_the_sender_up() -> None:
    """What a method does not read piles up at the client, not here."""
    go = threading.Event()
    read: list[int] = []

    def slow(stream: Stream) -> None:
        assert go.wait(WAIT)
        read.extend(len(piece.data) for piece in stream.messages(Bytes))
        stream.write(Bytes(b"done"))

    message = Bytes(b"x" * (64 << 10)).encode()
    framed = b"\0" + len(message).to_bytes(4) + message
    with connected({"/t.T/Slow": slow}) as client:
        number = client.begin("/t.T/Slow")
        client.until(
            lambda: client.h2.local_flow_control_window(number) > 65535
        )  # the server's settings came
        while client.h2.local_flow_control_window(number) >= len(framed):
            client.send(number, framed)
        sent = (1 << 20) // len(framed)
        go.set()
        for _ in range(40):
            client.send(number, framed)
        client.send(number, b"", end=True)
        client.until(lambda: client.answers[number].ended)
    assert read == [64 << 10] * (sent + 40)


def test_many_calls_at_once_each_get_their_own_answer() -> None:
    together = threading.Barrier(20, timeout=WAIT)

    def wait(request: Bytes, stream: Stream) -> Bytes:
        together.wait()  # only goes on when all are here
        return request

    with connected({"/t.T/Wait": unary(Bytes, wait)}) as client:
        numbers = {}
        for index in range(20):
            message = Bytes(bytes((index,))).encode()
            number = client.begin("/t.T/Wait")
            client.send(number, b"\0" + len(message).to_bytes(4) + message, end=True)
            numbers[number] = index
        client.until(lambda: all(client.answers[number].ended for number in numbers))
    got = {number: Bytes.decode(client.answers[number].messages[0]).data[0] for number in numbers}
    assert got == numbers


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_call_nobody_wants_any_more_is_cancelled(how: str) -> None:
    begun, ended = threading.Event(), threading.Event()

    def long(stream: Stream) -> None:
        with stream.cancel.on_cancel(ended.set):
            begun.set()
            assert ended.wait(WAIT)

    with connected({"/t.T/Long": long}) as client:
        number = client.begin("/t.T/Long")
        assert begun.wait(WAIT)
        if how == "reset":
            client.h2.reset_stream(number, 8)
            client.flush()
        else:
            client.sock.shutdown(socket.SHUT_RDWR)
        assert ended.wait(WAIT)


def test_a_sender_that_waits_for_room_learns_that_the_client_is_gone() -> None:
    failed: list[GrpcError] = []
    over = threading.Event()

    def flood(stream: Stream) -> None:
        try:
            while True:
                stream.write(Bytes(b"x" * (64 << 10)))
        except GrpcError as error:
            failed.append(error)
        over.set()

    with connected({"/t.T/Flood": flood}) as client:
        client.begin("/t.T/Flood", end=True)
        client.sock.recv(1 << 16)  # and never more room
        client.sock.close()
        assert over.wait(WAIT)
    assert failed


def test_a_deadline_ends_a_call_that_waits() -> None:
    def wait(stream: Stream) -> None:
        stream.receive()

    with connected({"/t.T/Wait": wait}) as client:
        number = client.begin("/t.T/Wait", ("grpc-timeout", "50m"))
        client.until(lambda: client.answers[number].ended)
    error = client.answers[number].error
    assert error is not None and error.code is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "data",
    [b"\1\0\0\0\1x", b"\0" + (MOST + 1).to_bytes(4)],
    ids=["compressed", "too large"],
)
def test_a_message_we_do_not_take_ends_its_call_and_no_other(data: bytes) -> None:
    with connected({"/t.T/Echo": unary(Bytes, echo)}) as client:
        number = client.begin("/t.T/Echo")
        client.send(number, data)
        client.until(lambda: client.answers[number].reset is not None)
        assert client.call("/t.T/Echo", Bytes(b"ab").encode()).error is None


def test_a_message_that_is_none_is_an_error() -> None:
    with connected({"/t.T/Echo": unary(Bytes, echo)}) as client:
        error = client.call("/t.T/Echo", b"\x0a\xff").error
    assert error is not None and error.code is Code.INTERNAL and "Bytes" in error.message


def test_metadata_reach_the_method_all_values_of_a_name() -> None:
    seen: list[Any] = []

    def look(request: Bytes, stream: Stream) -> Bytes:
        seen.append(stream.headers["followpaths"])
        return request

    with connected({"/t.T/Look": unary(Bytes, look)}) as client:
        client.call("/t.T/Look", b"", ("followpaths", "a"), ("followpaths", "b"))
    assert seen == [["a", "b"]]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff"]
)
def test_who_does_not_speak_http2_is_let_go(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(ours, {}))
    thread.start()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        thread.join(WAIT)
    assert not thread.is_alive()
