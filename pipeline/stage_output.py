"""What comes out of a stage's container: marks become `$ command` lines, the rest goes on as it is; the last lines are kept.

The log is kept for the result cache too, up to a limit; beyond it, a replay shows the beginning and the end.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from pipeline.mask import Secrets, StreamMasker
from pipeline.script import Command, MarkReader
from runtime.events import Emit, Output

_LOG_LIMIT = 4 << 20
_TAIL_LINES = 20
_TAIL_BYTES = 16 << 10


class StageOutput:
    """The output of one attempt. `feed` is called by the engine's threads."""

    def __init__(
        self,
        node: str,
        emit: Emit,
        masker: Secrets,
        commands: tuple[Command, ...],
        after: tuple[Command, ...] = (),
    ) -> None:
        self.nonce = os.urandom(8).hex()
        self.current: Command | None = None
        self.log: list[tuple[str, bytes]] = []
        self._node, self._emit, self._commands, self._after = node, emit, commands, after
        self._marks = MarkReader(self.nonce)
        # Masked here and not only where events enter the stream: the log and the tail go other ways too.
        self._maskers = {stream: StreamMasker(masker) for stream in ("stdout", "stderr")}
        self._lock = threading.Lock()
        self._size = 0
        self._end: deque[bytes] = deque()
        self._end_size = 0
        self._at_line_start = True

    def feed(self, stream: str, data: bytes) -> None:
        with self._lock:
            if stream != "stdout":
                self._show(stream, data)
                return
            for piece in self._marks.feed(data):
                if isinstance(piece, int):
                    self._begin(piece)
                else:
                    self._show(stream, piece)

    def finish(self) -> None:
        """Nothing more comes."""
        with self._lock:
            rest = self._marks.flush()
            if rest:
                self._show("stdout", rest)
            for stream, masker in self._maskers.items():
                self._pass(stream, masker.flush())

    def _begin(self, number: int) -> None:
        every = self._commands + self._after
        if number >= len(every):
            return
        if number < len(self._commands):
            self.current = self._commands[number]  # what comes after does not decide
        newline = "" if self._at_line_start else "\n"
        line = f"{newline}$ {every[number].title}\n"
        self._show("stdout", line.encode("utf-8", "surrogateescape"))

    def _show(self, stream: str, data: bytes) -> None:
        self._pass(stream, self._maskers[stream].feed(data))

    def _pass(self, stream: str, data: bytes) -> None:
        if not data:
            return
        self._at_line_start = data.endswith(b"\n")
        self._emit(Output(node=self._node, stream=stream, data=data))
        self._size += len(data)
        if self._size <= _LOG_LIMIT:
            self.log.append((stream, data))
        self._end.append(data)
        self._end_size += len(data)
        while self._end_size > _TAIL_BYTES and len(self._end) > 1:
            self._end_size -= len(self._end.popleft())

    @property
    def tail(self) -> str:
        """The last lines, for the error."""
        text = b"".join(self._end)[-_TAIL_BYTES:].decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])
