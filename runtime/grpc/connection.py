"""HTTP/2 on one socket, either side: h2 knows the protocol, this module moves the bytes and keeps the streams.

`run` reads until the connection ends, on the thread that calls it. Any thread may send. The state of h2 is guarded by one
lock, which is never held while the socket blocks; whoever writes to the socket also takes along what others left to send.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Headers, Stream

logging.getLogger("hpack").setLevel(logging.INFO)  # it tells of every header of every call

_WINDOW = 1 << 20  # bytes a stream may send ahead; of the connection, sixteen times
_RECEIVE = 256 << 10
_MOST_STREAMS = 256


class Connection:
    """`begin` is told each stream the other side opens; a client has none."""

    def __init__(
        self, sock: socket.socket, begin: Callable[[Stream], None] | None = None, data: bytes = b""
    ) -> None:
        """`data` was already read from the socket."""
        self._socket, self._begin, self._first = sock, begin, data
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._over: GrpcError | None = None
        self._outgoing = b""
        config = h2.config.H2Configuration(client_side=begin is None, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=begin is None,
            initial_values={
                codes.INITIAL_WINDOW_SIZE: _WINDOW,
                codes.MAX_CONCURRENT_STREAMS: _MOST_STREAMS,
                codes.MAX_HEADER_LIST_SIZE: 1 << 20,
                codes.ENABLE_PUSH: 0,
            },
        )

    def start(self) -> None:
        """Say hello; a client may ask from now on."""
        with self._lock:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(16 * _WINDOW)
        self._flush()

    def run(self) -> None:
        """Take in what comes until the connection ends, either way; `start` comes before it."""
        reason = "the other side closed the connection"
        try:
            data = self._first or self._socket.recv(_RECEIVE)
            while data:
                self._take(data)
                self._flush()
                data = self._socket.recv(_RECEIVE)
        except h2.exceptions.ProtocolError as error:
            reason = f"the other side does not speak HTTP/2: {error}"
            self._flush_last()
        except OSError as error:
            reason = f"the connection broke: {error.strerror or error}"
        finally:
            self._end(reason)
            self._shut()

    def close(self) -> None:
        """End the connection; `run` returns."""
        with self._lock:
            if self._over is None:
                try:
                    self._h2.close_connection()
                except h2.exceptions.ProtocolError:
                    pass
        self._flush_last()
        self._shut()

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already

    def open(self, headers: Headers) -> Stream:
        """A new stream, as a client."""
        with self._lock:
            if self._over is not None:
                raise self._over
            number = self._h2.get_next_available_stream_id()
            stream = Stream(self, number, headers, serving=False)
            self._streams[number] = stream
            self._h2.send_headers(number, list(headers))
        self._flush()
        return stream

    @property
    def closed(self) -> bool:
        return self._over is not None

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_headers(self, number: int, headers: Headers, end: bool) -> None:
        with self._lock, _told_as_ours():
            self._check(number)
            self._h2.send_headers(number, list(headers), end_stream=end)
            self._forget_if_over(number)
        self._flush()

    def send_data(self, number: int, data: bytes, end: bool = False) -> None:
        view = memoryview(data)
        while True:
            with self._lock, _told_as_ours():
                view = view[self._send_some(number, view) :]
                if not view and end:
                    self._end_stream(number)
            self._flush()
            if not view:
                return

    def _end_stream(self, number: int) -> None:
        """No more from us; the other side may have ended all of it already."""
        try:
            self._h2.end_stream(number)
        except h2.exceptions.StreamClosedError:
            pass
        self._forget_if_over(number)

    def _send_some(self, number: int, view: memoryview) -> int:
        """Hand to h2 what there is room for, at least a byte; how much."""
        sent = 0
        while sent < len(view):
            self._check(number)
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room <= 0:
                if sent:
                    return sent
                self._changed.wait()
                continue
            piece = view[sent : sent + room]
            self._h2.send_data(number, bytes(piece))
            sent += len(piece)
        return sent

    def reset(self, number: int, code: int) -> None:
        with self._lock:
            if self._over is None and number in self._streams:
                del self._streams[number]
                try:
                    self._h2.reset_stream(number, code)
                except h2.exceptions.ProtocolError:
                    pass  # it ended meanwhile
        self._flush()

    def consumed(self, number: int, size: int) -> None:
        """The other side may send so much more."""
        if not size:
            return
        with self._lock:
            if self._over is None:
                self._h2.acknowledge_received_data(size, number)
        self._flush()

    def _check(self, number: int) -> None:
        if self._over is not None:
            raise self._over
        if number not in self._streams:
            raise GrpcError(Code.CANCELLED, "the call was ended by the other side")

    def _forget_if_over(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.is_over:
            del self._streams[number]

    def _flush(self) -> None:
        """Write out what h2 has to say. If somebody is writing already, they take it along."""
        while self._has_to_say() and self._sending.acquire(blocking=False):
            try:
                with self._lock:
                    data, self._outgoing = self._outgoing, b""
                self._socket.sendall(data)
            except OSError:
                return  # the reader comes upon it too, and tells everybody
            finally:
                self._sending.release()

    def _has_to_say(self) -> bool:
        with self._lock:
            self._outgoing += self._h2.data_to_send()
            return bool(self._outgoing)

    def _flush_last(self) -> None:
        try:
            self._socket.settimeout(1.0)
            self._flush()
        except OSError:
            pass

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        with self._lock:
            events = self._h2.receive_data(data)
            self._changed.notify_all()
        for event in events:
            self._handle(event)

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._began(event)
            case h2.events.DataReceived():
                self._arrived(event)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._told(event)
            case h2.events.StreamEnded():
                self._ended(event)
            case h2.events.StreamReset():
                self._was_reset(event)
            case h2.events.ConnectionTerminated():
                self._was_terminated(event)

    def _began(self, event: h2.events.RequestReceived) -> None:
        assert self._begin is not None and event.stream_id is not None
        stream = Stream(self, event.stream_id, _texts(event.headers), serving=True)
        with self._lock:
            self._streams[event.stream_id] = stream
        self._begin(stream)

    def _arrived(self, event: h2.events.DataReceived) -> None:
        assert event.stream_id is not None and event.flow_controlled_length is not None
        stream = self._stream(event.stream_id)
        if stream is None:
            self.consumed(event.stream_id, event.flow_controlled_length)
        else:
            stream.arrived(bytes(event.data or b""), event.flow_controlled_length)

    def _told(self, event: h2.events.ResponseReceived | h2.events.TrailersReceived) -> None:
        assert event.stream_id is not None
        if stream := self._stream(event.stream_id):
            stream.told(_texts(event.headers))

    def _ended(self, event: h2.events.StreamEnded) -> None:
        assert event.stream_id is not None
        if stream := self._stream(event.stream_id):
            stream.ended(answer=self._begin is None)
            if self._begin is None and stream.is_answered:
                self.reset(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)  # what else we say is for nobody
            with self._lock:
                self._forget_if_over(event.stream_id)

    def _was_reset(self, event: h2.events.StreamReset) -> None:
        with self._lock:
            stream = self._streams.pop(event.stream_id or 0, None)
            self._changed.notify_all()
        if stream is not None:
            stream.lost(GrpcError(Code.CANCELLED, "the other side broke the call off"))

    def _was_terminated(self, event: h2.events.ConnectionTerminated) -> None:
        """GOAWAY: h2 takes it for the end, and so do we."""
        self._end(f"the other side ends the connection (error {event.error_code or 0:d})")

    def _stream(self, number: int) -> Stream | None:
        with self._lock:
            return self._streams.get(number)

    def _end(self, reason: str) -> None:
        with self._lock:
            if self._over is not None:
                return
            self._over = GrpcError(Code.UNAVAILABLE, reason)
            streams = list(self._streams.values())
            self._streams.clear()
            self._changed.notify_all()
        for stream in streams:
            stream.lost(self._over)


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """h2 knows that a stream is over as soon as that is read, our streams when they are told."""
    try:
        yield
    except h2.exceptions.ProtocolError as error:
        raise GrpcError(Code.CANCELLED, "the call was ended by the other side") from error


def _texts(headers: object) -> list[tuple[str, str]]:
    """h2 gives strings where an encoding was named; its types do not say so."""
    return [(str(name), str(value)) for name, value in (headers or ())]  # type: ignore[attr-defined]
