"""One call on a connection: messages both ways, an end, and a token that is set when nobody wants it any more.

The connection's reader fills it; whoever serves or makes the call reads from it, on a thread of its own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from runtime.cancel import Cancel
from runtime.grpc.framing import Unframer, framed
from runtime.grpc.protobuf import DecodeError, Message
from runtime.grpc.status import Code, GrpcError, error_of, trailers_of

M = TypeVar("M", bound=Message)
Headers = Sequence[tuple[str, str]]


class Wire(Protocol):
    """What a stream needs of its connection."""

    def send_headers(self, number: int, headers: Headers, end: bool) -> None: ...

    def send_data(self, number: int, data: bytes, end: bool = False) -> None: ...

    def reset(self, number: int, code: int) -> None: ...

    def consumed(self, number: int, size: int) -> None: ...


class Stream:
    """`headers` are those the call began with, a name that is there more than once with all its values."""

    def __init__(self, wire: Wire, number: int, headers: Headers, *, serving: bool) -> None:
        self.number, self._serving = number, serving
        self.cancel = Cancel()
        self.headers: dict[str, list[str]] = {}
        for name, value in headers:
            self.headers.setdefault(name, []).append(value)
        self._wire = wire
        self._arrived: queue.SimpleQueue[tuple[bytes, int] | GrpcError | None] = queue.SimpleQueue()
        self._unframer = Unframer()
        self._ahead = 0  # bytes of a message not complete yet that the sender already has room back for
        self._owed = 0  # bytes that were read, and that the sender has no room back for yet
        self._over, self._outcome = threading.Event(), cast("GrpcError | None", None)
        self._trailers: dict[str, str] = {}
        self._began = self._sending_ended = self._receiving_ended = False
        self._deadline = _deadline(self.header("grpc-timeout")) if serving else None

    def header(self, name: str) -> str:
        """The first value of a header, or nothing."""
        return next(iter(self.headers.get(name, ())), "")

    @property
    def path(self) -> str:
        return self.header(":path")

    @property
    def is_over(self) -> bool:
        return self._sending_ended and self._receiving_ended

    @property
    def is_answered(self) -> bool:
        """The other side has said all it has to say, and we have not."""
        return self._receiving_ended and not self._sending_ended

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message; None when there are no more. Raises what the call ended with, if that was an error."""
        if self._deadline is not None:
            left = max(0.0, self._deadline - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        try:
            found = self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise GrpcError(Code.DEADLINE_EXCEEDED, f"no answer to {self.path} in time") from None
        if isinstance(found, tuple):
            self._owed += found[1]
            if self._owed >= _HELD or self._arrived.empty():
                owed, self._owed = self._owed, 0
                self._wire.consumed(self.number, owed)
            return found[0]
        self._arrived.put(found)  # the end stays the end
        if found is None:
            return None
        raise found

    def read(self, kind: type[M], timeout: float | None = None) -> M | None:
        """The next message as one of that kind."""
        data = self.receive(timeout)
        if data is None:
            return None
        try:
            return kind.decode(data)
        except DecodeError as error:
            raise GrpcError(Code.INTERNAL, f"what came is no {kind.__name__}: {error}") from error

    def messages(self, kind: type[M]) -> Iterator[M]:
        while (message := self.read(kind)) is not None:
            yield message

    @property
    def has_more(self) -> bool:
        """Whether `receive` would answer at once."""
        return not self._arrived.empty()

    # --- sending ------------------------------------------------------------------------------------------------------

    def write(self, *messages: Message) -> None:
        """Send them, at once if there is room; else this waits. If the call ended meanwhile, that is what is raised."""
        self._begin()
        try:
            self._wire.send_data(self.number, b"".join(framed(message.encode()) for message in messages))
        except GrpcError as error:
            if self._serving:
                raise
            self._raise_outcome(error)

    def _raise_outcome(self, error: GrpcError) -> None:
        """Nobody takes what we send, and the answer says why. A good one may come before we have said everything."""
        if not self._over.wait(_MOMENT):
            raise error
        if self._outcome is not None:
            raise self._outcome from None

    def _begin(self) -> None:
        """A server answers with a head before the first message."""
        if self._serving and not self._began:
            self._wire.send_headers(self.number, _HEAD, False)
        self._began = True

    def end_sending(self) -> None:
        """No more messages from this side. A server says so with `finish`."""
        if not self._sending_ended and not self._serving:
            self._sending_ended = True
            self._wire.send_data(self.number, b"", end=True)

    def finish(self, error: GrpcError | None = None) -> None:
        """End the call (of a server)."""
        if self._sending_ended:
            return
        self._sending_ended = True
        trailers = trailers_of(error)
        self._wire.send_headers(self.number, trailers if self._began else [*_HEAD, *trailers], True)
        if not self._receiving_ended:
            self._wire.reset(self.number, _NO_ERROR)  # what else the client sends is for nobody

    def break_off(self) -> None:
        """End the call without an end."""
        if not self.is_over:
            self._wire.reset(self.number, _CANCEL)
        self.ended(GrpcError(Code.CANCELLED, f"{self.path or 'the call'} was broken off"))

    # --- what the connection's reader tells ---------------------------------------------------------------------------

    def arrived(self, data: bytes, size: int) -> None:
        """Bytes came, which took `size` of the window."""
        try:
            found = self._unframer.feed(data)
        except GrpcError as error:
            self._wire.reset(self.number, _CANCEL)
            self._wire.consumed(self.number, size)
            return self.lost(error)
        for message in found:
            self._arrived.put((message, len(framed(b"")) + len(message) - self._ahead))
            self._ahead = 0
        held = self._unframer.incomplete - self._ahead
        if held >= _HELD:
            # Else a message larger than the window would wait for room that only its own end makes.
            self._wire.consumed(self.number, held)
            self._ahead += held
        self._wire.consumed(self.number, size - len(data))  # padding

    def told(self, headers: Headers) -> None:
        """Head or trailers of an answer."""
        self._trailers.update(headers)

    def ended(self, error: GrpcError | None = None, *, answer: bool = False) -> None:
        """The other side sends no more, or there is no other side. `answer`: the trailers say how it went."""
        if self._receiving_ended:
            return
        self._receiving_ended = True
        self._outcome = error_of(self._trailers) if answer else error
        self._over.set()
        self._arrived.put(self._outcome)
        if error is not None:
            self.cancel.cancel(error.message)

    def lost(self, error: GrpcError) -> None:
        """Nothing can be sent or received any more."""
        self._sending_ended = True
        self.ended(error)
        self.cancel.cancel(error.message)


_HEAD: Headers = ((":status", "200"), ("content-type", "application/grpc"))
_NO_ERROR, _CANCEL = 0, 8  # RFC 9113 section 7
_HELD = 256 << 10
_MOMENT = 5.0  # seconds until the reader has told what h2 already knows
_UNITS: Mapping[str, float] = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _deadline(text: str) -> float | None:
    """`grpc-timeout` as a moment of the monotonic clock."""
    if not text or not text[:-1].isdecimal() or text[-1] not in _UNITS:
        return None
    return time.monotonic() + int(text[:-1]) * _UNITS[text[-1]]
