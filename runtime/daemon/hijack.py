"""A connection that is handed over: bytes both ways between a client and a container's shim (FEATURES E-R7, D-26)."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.containers.client import Connection, ShimGone, parse_detach_keys
from runtime.containers.frames import STDERR, frame
from runtime.containers.spec import ExitStatus
from runtime.daemon.errors import text_of
from runtime.errors import PipeError
from runtime.http.gone import when_hung_up
from runtime.http.messages import Request, Response

RAW, FRAMED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
_DETACH_KEYS = "ctrl-p,ctrl-q"


def hijacked(request: Request, take: Callable[[socket.socket, bytes], None], tty: bool) -> Response:
    """Docker's two ways: 101 for who asks for an upgrade, else 200 and no more HTTP. An error is said on the stream."""

    def taken(line: socket.socket, begun: bytes) -> None:
        try:
            take(line, begun)
        except PipeError as error:
            text = f"{text_of(error)}\n".encode()
            line.sendall(text if tty else frame(STDERR, text))

    headers = {"Content-Type": RAW if tty else FRAMED}
    if request.headers.get("upgrade"):
        return Response(101, {**headers, "Connection": "Upgrade", "Upgrade": "tcp"}, takeover=taken)
    return Response(200, headers, takeover=taken)


def relay(
    connection: Connection, line: socket.socket, begun: bytes, tty: bool, stdin: bool, keys: bytes
) -> ExitStatus | None:
    """Pass both ways until it ends; None when the client went or detached."""

    def output(kind: int, data: bytes) -> None:
        try:
            line.sendall(data if tty else frame(kind, data))
        except OSError as error:
            raise ShimGone from error  # the other end: there is nobody to pass on to

    with when_hung_up(line, connection.interrupt):
        try:
            if begun and stdin:
                connection.send_input(begun)
            ended = connection.pump(output, line.fileno() if stdin else -1, detach_keys=keys)
            if ended is not None and ended.error:
                output(STDERR, f"{ended.error}\n".encode())  # the program could not be started
            return ended
        except ShimGone:
            return None


@contextmanager
def plain(line: socket.socket) -> Iterator[socket.socket]:
    """A socket whose descriptor gives plain bytes: TLS is passed on through a pair."""
    if not isinstance(line, ssl.SSLSocket):
        yield line
        return
    inner, outer = socket.socketpair()
    threads = [
        threading.Thread(target=_pass_on, args=pair, name="attach-tls", daemon=True)
        for pair in ((line, outer), (outer, line))
    ]
    for thread in threads:
        thread.start()
    try:
        yield inner
    finally:
        inner.close()
        threads[1].join()
        outer.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of them has gone, and the other will


def detach_keys(text: str) -> bytes:
    """What is typed to leave; "" is docker's own."""
    return parse_detach_keys(text or _DETACH_KEYS)
