"""A writable stream whose work is done on a thread of its own, a bounded number of chunks behind."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import BinaryIO, cast

from runtime.store.layers.compression import Sink

_DEPTH = 16


class Piped:
    """`with Piped(out) as pipe: pipe.write(…)`: what is written reaches `out` by the end of the block."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
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
