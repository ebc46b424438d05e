"""Streams whose work is done on a thread of its own, a bounded number of chunks behind or ahead of their user."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import BinaryIO, Protocol, cast

from runtime.cancel import Sink

_DEPTH = 16
_HASHED = 4  # pieces a hash may be behind
_CHUNK = 1 << 20


class Hasher(Protocol):
    """The part of a hash that is used here."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Piped:
    """`with Piped(out) as pipe: pipe.write(…)`: what is written reaches `out` by the end of the block."""

    def __init__(self, out: Sink, depth: int = _DEPTH) -> None:
        self._out = out
        self._chunks: queue.Queue[bytes | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pipe", daemon=True)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            if self._error is None:
                try:
                    self._out.write(chunk)
                except BaseException as error:  # noqa: BLE001  raised by the writing side; the queue is still emptied
                    self._error = error

    def write(self, data: bytes) -> int:
        if self._error is not None:
            raise self._error
        self._chunks.put(data)
        return len(data)

    def __enter__(self) -> BinaryIO:
        self._thread.start()
        return cast(BinaryIO, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._chunks.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error


class Hashing:
    """`with Hashing(sha256()) as hashing: hashing.update(…); hashing.digest()`: hashes on a thread, some pieces behind.

    For large pieces: below 2 KiB hashlib keeps the interpreter to itself. What is given must not change afterwards.
    """

    def __init__(self, hasher: Hasher) -> None:
        self._hash = hasher
        # Both threads are busy: queues that are not written in Python cost them less.
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._behind = 0
        self._thread: threading.Thread | None = None

    def update(self, data: bytes, /) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
            self._thread.start()
        if self._behind == _HASHED:
            self._done.get()
        else:
            self._behind += 1
        self._pieces.put(data)

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)
            self._done.put(None)

    def digest(self) -> bytes:
        self.close()
        return self._hash.digest()

    def close(self) -> None:
        """Wait for the thread; needed when the digest is not asked for."""
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Ahead:
    """`with Ahead(stream) as ahead: ahead.read(n)`: reads, and so decompresses, while its user works on what it has."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_DEPTH)
        self._stopped = threading.Event()
        self._rest: bytes | BaseException = b""
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def _run(self) -> None:
        chunk: bytes | BaseException = b"-"
        while chunk and not isinstance(chunk, BaseException) and not self._stopped.is_set():
            try:
                chunk = self._stream.read(_CHUNK)
            except BaseException as error:  # noqa: BLE001  raised by the reading side
                chunk = error
            self._put(chunk)

    def _put(self, chunk: bytes | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                return self._chunks.put(chunk, timeout=1.0)
            except queue.Full:
                continue

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        if not self._rest and not self._ended:
            self._rest = self._chunks.get()
            self._ended = not self._rest
        if isinstance(self._rest, BaseException):
            raise self._rest
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def __enter__(self) -> BinaryIO:
        self._thread.start()
        return cast(BinaryIO, self)

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        # It may be waiting for room in the queue.
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._thread.join()
