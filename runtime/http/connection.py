"""HTTP/1.1 on one socket: requests in, responses out, one after another, until either side has enough.

h11 knows the protocol, this module moves the bytes. A body nobody read is drained when little is left of it;
otherwise the connection is closed, gently: a socket closed with unread data in it is reset, and the reset can
overtake the answer on its way to the client (RFC 9112 9.6).
"""

from __future__ import annotations

import email.utils
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http import HTTPStatus

import h11

from registry_client.values import frozen
from runtime.http.gone import when_gone
from runtime.http.messages import Disconnected, FileBody, Headers, HttpError, Request, Response

_RECEIVE = 256 << 10
_SERVER = "pipe"


@frozen
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 64 << 10
    drain: int = 1 << 20  # of a body nobody read, for the sake of keeping the connection
    linger: float = 5.0
    idle: float = 90.0  # between requests
    head_time: float = 30.0  # from a request's first byte to the end of its head
    stall: float = 120.0  # without any progress in a body, either way


class Connection:
    """Serves one socket on the calling thread."""

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[Request], Response],
        *,
        peer: str = "",
        limits: Limits | None = None,
        mark: Callable[[bool], bool] = lambda idle: True,
    ) -> None:
        """`mark` is told whether the connection waits for a request; its False says that this is the last one."""
        self._socket = sock
        self._handler = handler
        self._peer = peer
        self._limits = limits or Limits()
        self._mark = mark
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)

    def serve(self) -> None:
        """Answer requests until the connection ends; closes the socket."""
        try:
            while self._serve_one():
                pass
        except (Disconnected, OSError, h11.LocalProtocolError):
            pass  # the client is gone: nobody is left to be told
        finally:
            self._socket.close()

    def _serve_one(self) -> bool:
        try:
            head = self._next_head()
        except h11.RemoteProtocolError as error:
            self._refuse(error)
            return False
        if head is None:
            return False
        self._mark(False)
        request = self._request(head)
        if request.content_length in (None, 0) and "transfer-encoding" not in request.headers:
            self._h11.next_event()  # the end of a body that never was
        response = self._handler(request)
        if response.takeover is not None:
            self._hand_over(response)
            return False
        return self._answer(request, response)

    # ── receiving ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _next_head(self) -> h11.Request | None:
        """The next request; None when the client wants no more, or has nothing to say for too long."""
        deadline = None
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                # h11 limits what it has to hold; a head that comes at once was never held.
                if sum(len(name) + len(value) for name, value in event.headers) > self._limits.head:
                    raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
                return event
            if isinstance(event, h11.ConnectionClosed):
                return None
            if event is not h11.NEED_DATA:
                raise Disconnected
            if deadline is None:
                begun = bool(self._h11.trailing_data[0])
                if not begun and not self._mark(True):
                    return None
                wait = self._limits.idle
            if deadline is None and self._h11.trailing_data[0]:
                deadline = time.monotonic() + self._limits.head_time
            if deadline is not None:
                wait = deadline - time.monotonic()
            if wait <= 0 or not self._receive(wait):
                return None
            if deadline is None:
                deadline = time.monotonic() + self._limits.head_time

    def _receive(self, wait: float) -> bool:
        """Feed h11; False when nothing came in time. The end of the stream is fed as such."""
        self._socket.settimeout(wait)
        try:
            data = self._socket.recv(_RECEIVE)
        except TimeoutError:
            return False
        self._h11.receive_data(data)
        return True

    def _request(self, head: h11.Request) -> Request:
        target = head.target.decode("latin-1")
        # A proxy's client sends the absolute form.
        path = target if target.startswith("/") else urllib.parse.urlsplit(target).path or "/"
        headers = Headers([(n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers])
        return Request(
            method=head.method.decode("latin-1"),
            target=target,
            headers=headers,
            body=_Body(self),
            path=urllib.parse.unquote(path.partition("?")[0]),
            peer=self._peer,
            http_version=head.http_version.decode("latin-1"),
            when_gone=lambda callback: when_gone(self._socket, callback),
        )

    def body_chunks(self) -> Iterator[bytes]:
        """The current request's body. Asks a client that waits for it to go on."""
        if self._h11.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
        # Asked once more behind the end of the message, h11 would wait for the next request.
        while self._h11.their_state is h11.SEND_BODY:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise Disconnected from error
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif event is h11.NEED_DATA and not self._receive(self._limits.stall):
                raise Disconnected

    # ── sending ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, request: Request, response: Response) -> bool:
        """Send; whether the connection can go on."""
        keep = self._mark(False) and self._body_done(request)
        self._socket.settimeout(self._limits.stall)
        try:
            self._send_response(request, response, keep)
        finally:
            response.close()
        if not keep or self._h11.our_state is not h11.DONE or not self._drained():
            if self._h11.their_state is h11.SEND_BODY:
                self._linger()
            return False
        self._h11.start_next_cycle()
        return True

    def _body_done(self, request: Request) -> bool:
        """Whether what is left of the request's body is read, or little enough to be drained after the answer."""
        if self._h11.their_state is not h11.SEND_BODY:
            return self._h11.their_state is not h11.MUST_CLOSE
        if self._h11.they_are_waiting_for_100_continue:
            return False  # it may come or not: the client decides
        return request.content_length is not None and request.content_length <= self._limits.drain

    def _drained(self) -> bool:
        if self._h11.their_state is h11.SEND_BODY:
            for _ in self.body_chunks():
                pass
        return self._h11.their_state is h11.DONE

    def _send_response(self, request: Request, response: Response, keep: bool) -> None:
        headers = {"Date": email.utils.formatdate(usegmt=True), "Server": _SERVER, **response.headers}
        body = response.body
        framed = any(name.lower() in ("content-length", "transfer-encoding") for name in headers)
        if isinstance(body, FileBody):
            headers["Content-Length"] = str(body.length)
        elif isinstance(body, bytes) and not framed and response.status not in (204, 304):
            headers["Content-Length"] = str(len(body))
        if not keep:
            headers["Connection"] = "close"
        head = h11.Response(
            status_code=response.status, headers=list(headers.items()), reason=_phrase(response.status)
        )
        start = self._h11.send(head) or b""
        if request.method == "HEAD" or response.status in (204, 304):
            self._socket.sendall(start + (self._h11.send(h11.EndOfMessage()) or b""))
        elif isinstance(body, bytes):
            # One packet for head and body: a second one would wait for the first one's acknowledgement.
            content = self._h11.send(h11.Data(data=body)) if body else b""
            self._socket.sendall(start + (content or b"") + (self._h11.send(h11.EndOfMessage()) or b""))
        else:
            self._socket.sendall(start)
            if isinstance(body, FileBody):
                self._send_file(body)
            else:
                for chunk in body:
                    self._send(h11.Data(data=chunk))
            self._send(h11.EndOfMessage())

    def _send_file(self, body: FileBody) -> None:
        if not body.length:
            return
        self._h11.send_with_data_passthrough(h11.Data(data=_Elsewhere(body.length)))  # type: ignore[arg-type]
        if self._socket.sendfile(body.file, body.offset, body.length) != body.length:
            raise Disconnected  # the file is shorter than it was: the promised length cannot be kept

    def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._socket.sendall(data)

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Tell a client that does not speak HTTP."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = f"{error}\n".encode()
        headers = [
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain"),
            ("Connection", "close"),
        ]
        status = error.error_status_hint
        self._send(h11.Response(status_code=status, headers=headers, reason=_phrase(status)))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        self._linger()

    def _hand_over(self, response: Response) -> None:
        """Send the head and leave the socket to the handler."""
        takeover = response.takeover
        assert takeover is not None
        lines = [f"HTTP/1.1 {response.status} {_phrase(response.status)}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._socket.settimeout(None)
        takeover(self._socket, bytes(self._h11.trailing_data[0]))

    def _linger(self) -> None:
        """Say that we are done, and take in what is still on its way."""
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + self._limits.linger
        while (wait := deadline - time.monotonic()) > 0:
            self._socket.settimeout(wait)
            try:
                if not self._socket.recv(_RECEIVE):
                    return
            except TimeoutError:
                return


class _Body:
    """A request's body as its handler sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        return self._connection.body_chunks()

    def read(self, limit: int) -> bytes:
        parts, size = [], 0
        for chunk in self:
            size += len(chunk)
            if size > limit:
                raise HttpError(413, f"the body has more than {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)


class _Elsewhere:
    """Stands for bytes that reach the socket past h11, which only counts them (h11's sendfile recipe)."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
