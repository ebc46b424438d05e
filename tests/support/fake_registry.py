"""A registry that misbehaves to order: answers come from a function, connections can be cut in either direction."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """`cut_after`: send so many bytes of the body, then reset the connection."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None


@dataclass(frozen=True)
class Cut:
    """Read so many bytes of the request's body, then reset the connection; the rest never arrived."""

    after: int = 0


class FakeRegistry:
    def __init__(self) -> None:
        self.host = ""
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer] = lambda asked: Answer(404)
        # Decides before the body is read, from method and path, whether to cut the connection.
        self.cut: Callable[[str, str], Cut | None] = lambda method, path: None
        self.received_before_cut: list[bytes] = []


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """A fake on a free loopback port for the length of the block."""
    fake = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            cut = fake.cut(self.command, self.path)
            if cut is not None:
                fake.received_before_cut.append(self.rfile.read(min(cut.after, length)))
                self._reset()
                return
            asked = Asked(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
            fake.asked.append(asked)
            self._send(fake.answer(asked))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            headers = {"Content-Length": str(len(answer.body)), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(answer.body[: answer.cut_after])
            if answer.cut_after is not None:
                self.wfile.flush()
                self.connection.shutdown(
                    socket.SHUT_WR
                )  # an early end rather than a reset: nothing gets lost
                self.close_connection = True

        def _reset(self) -> None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def shutdown_request(self, request: object) -> None:
            # The orderly shutdown of the base class would turn our reset into a normal end.
            self.close_request(request)  # type: ignore[arg-type]

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    fake.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
