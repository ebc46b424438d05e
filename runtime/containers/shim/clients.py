"""Those who talk to a shim: one connection each, on the control socket or the pair its starter made.

A client sends requests and stdin, and gets answers, events and output (see `runtime.containers.frames`). What a
request means is decided by the handler; here are only bytes, buffers and who is slow.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.containers.frames import MESSAGE, STDIN, BrokenStream, Decoder, frame, message
from runtime.containers.shim.loop import GONE, READ, WRITE, Loop
from runtime.containers.shim.streams import CHUNK

if TYPE_CHECKING:
    from runtime.containers.shim.streams import Sink

_PATIENCE = 10.0
_SLOW = 1 << 20  # so much may wait for a client before the container has to


class Client:
    """One connection. `stdin` is where its stdin frames go, `streams` which output kinds it wants."""

    def __init__(
        self, loop: Loop, line: socket.socket, handler: Callable[[Client, dict[str, Any]], None]
    ) -> None:
        self._loop, self._line, self._fd, self._handler = loop, line, line.fileno(), handler
        self._decoder = Decoder()
        self._out = bytearray()
        self._eof = False
        self.fds: list[int] = []  # descriptors that came along, until a request takes them
        self.streams: frozenset[int] = frozenset()
        self.follows = False  # wants to hear of new log lines
        self.waits = False  # wants to hear of the end
        self.wants_stdin = False
        self._input: Sink | None = None
        self.on_input_end: Callable[[], None] = lambda: None  # it said that no more comes
        self.on_hang_up: Callable[[], None] = lambda: None  # its sending half was shut, or all of it
        self.on_gone: Callable[[], None] = lambda: None
        self.on_relief: Callable[[], None] = lambda: None
        line.setblocking(False)
        self._watch()

    @property
    def stdin(self) -> Sink | None:
        return self._input

    @stdin.setter
    def stdin(self, sink: Sink | None) -> None:
        self._input = sink
        if sink is not None:
            sink.on_relief = self._watch

    @property
    def open(self) -> bool:
        return self._fd >= 0

    @property
    def slow(self) -> bool:
        return len(self._out) >= _SLOW

    def send(self, data: bytes) -> None:
        """Queue bytes; they leave at once if they can."""
        if self.open:
            self._out += data
            self._flush()

    def tell(self, **fields: Any) -> None:
        self.send(message(**fields))

    def output(self, kind: int, data: bytes) -> None:
        if kind in self.streams:
            self.send(frame(kind, data))

    def _watch(self) -> None:
        if not self.open:
            return
        # Not read while its process does not read: the sender feels it, as with a pipe.
        held = self._eof or (self._input is not None and self._input.full)
        self._loop.watch(self._fd, (0 if held else READ) | (WRITE if self._out else 0), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & (READ | GONE):
            self._read(events)
        self._watch()

    def _read(self, events: int) -> None:
        try:
            data = self._receive()
            if data is None:
                return
            if data:
                for kind, body in self._decoder.feed(data):
                    self._take(kind, body)
                return
        except (OSError, BrokenStream, KeyError):
            self.close()
            return
        self._eof = True
        if self.stdin is not None:
            self.on_hang_up()
        # The other side shut down its sending half; it is only gone when nothing can be sent to it either.
        if events & GONE or not (self.streams or self.waits or self.follows):
            self.close()

    def _receive(self) -> bytes | None:
        """What came, b"" at the end, None when nothing is there. Descriptors may come along."""
        try:
            data, fds, _, _ = socket.recv_fds(self._line, CHUNK, 16)
        except BlockingIOError:
            return None
        self.fds += fds
        return data

    def _take(self, kind: int, body: bytes) -> None:
        if kind == MESSAGE:
            self._handler(self, json.loads(body))
        elif kind == STDIN and self.stdin is not None:
            if body:
                self.stdin.write(body)
            else:
                self.on_input_end()

    def _flush(self) -> None:
        slow = self.slow
        try:
            while self._out:
                del self._out[: self._line.send(self._out[: 4 * CHUNK], socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            self._watch()
        except OSError:
            self.close()
        if slow and not self.slow:
            self.on_relief()

    def close(self) -> None:
        if self.open:
            self._loop.forget(self._fd)
            self._line.close()
            self._fd = -1
            self._out.clear()
            for fd in self.fds:
                os.close(fd)
            self.fds = []
            self.on_relief()
            self.on_gone()

    def finish(self) -> None:
        """Send what is queued, waiting a while even for a slow reader, and close."""
        if self.open:
            self._line.settimeout(_PATIENCE)
            self._flush()
            self.close()
