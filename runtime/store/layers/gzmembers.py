"""gzip members one after the other, each to be found by its offset. A stream of them is one gzip file (RFC 1952, 2.2).

Several threads deflate, a bounded number of blocks ahead, and the bytes depend on neither their number nor the pieces that
come in. Offsets are known once everything before was written, so what wants one waits in the same line.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from runtime.cancel import Sink
from runtime.store.layers.blocks import BLOCK, HEADER, Engine

_THREADS_LIMIT = 4
_AT_ONCE = 64 << 10  # less than this is deflated sooner than handed over


class GzipMembers:
    """`start` begins a member, `add` fills it, `then` is called with the offset that has been reached."""

    def __init__(self, out: Sink, engine: Engine, level: int) -> None:
        self._out, self._engine, self._level = out, engine, level
        self._threads = min(len(os.sched_getaffinity(0)), _THREADS_LIMIT)
        self._pool: ThreadPoolExecutor | None = None
        self._line: deque[bytes | Future[bytes] | Callable[[int], None]] = deque()
        self._running = 0  # how many of the line are still being deflated, or were
        self._offset = 0
        self._pieces: list[bytes | memoryview] = []
        self._filled = self._size = self._crc = 0

    def start(self) -> None:
        """End the member at hand; what is added from now on is another one."""
        if self._size:
            self._deflate(last=True)
            self._line.append(
                self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
            )
            self._size = self._crc = 0
        self._write_what_is_done()

    def add(self, data: bytes | memoryview) -> None:
        if not self._size:
            self._line.append(HEADER)
        self._crc = self._engine.crc32(data, self._crc)
        self._size += len(data)
        rest = memoryview(data)
        while len(rest) > (missing := BLOCK - self._filled):
            self._pieces.append(rest[:missing])
            rest = rest[missing:]
            self._deflate(last=False)
        self._pieces.append(rest)
        self._filled += len(rest)

    def then(self, told: Callable[[int], None]) -> None:
        """Have it called with the offset at which whatever is added next will begin; after `start`, a member's."""
        self._line.append(told)

    def finish(self) -> int:
        """End the last member and write all; the offset behind it."""
        self.start()
        while self._line:
            self._write_one()
        return self._offset

    def close(self) -> None:
        """Let the threads go, also in the middle."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _deflate(self, last: bool) -> None:
        pieces, filled = self._pieces, self._filled
        self._pieces, self._filled = [], 0
        if filled < _AT_ONCE:
            self._line.append(self._deflated(pieces, last))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="deflate")
        while self._running > self._threads:
            self._write_one()
        self._running += 1
        self._line.append(self._pool.submit(self._deflated, pieces, last))

    def _deflated(self, pieces: list[bytes | memoryview], last: bool) -> bytes:
        """A block by itself. One that is not the last ends on a byte, so that the next can follow."""
        deflate = self._engine.compressobj(self._level, zlib.DEFLATED, -15)
        data: bytes = deflate.compress(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        rest: bytes = deflate.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        return data + rest

    def _write_what_is_done(self) -> None:
        """What stands first in the line and waits for no thread."""
        while self._line and not (isinstance(first := self._line[0], Future) and not first.done()):
            self._write_one()

    def _write_one(self) -> None:
        first = self._line.popleft()
        if isinstance(first, Future):
            self._running -= 1
            first = first.result()
        if isinstance(first, bytes):
            self._out.write(first)
            self._offset += len(first)
        else:
            first(self._offset)
