"""The words on a container's control socket.

Everything travels in Docker's stream frames (FEATURES D-26): eight bytes `[kind, 0, 0, 0, length big endian]` and
`length` bytes. Kinds 0, 1 and 2 are stdin, stdout and stderr of what the connection is attached to, so the Engine API
can hand them on as they are; an empty stdin frame is the end of input. Kind 16 is one JSON object: a request
(`{"op": …}`), its answer (`{"re": op, …}`) or an event (`{"event": …}`). Nothing here opens a socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

STDIN, STDOUT, STDERR, MESSAGE = 0, 1, 2, 16
HEADER = 8
# No honest peer sends more in one frame; a length beyond it is a broken stream, not a reason to allocate.
LONGEST = 16 << 20


class BrokenStream(ValueError):
    """The bytes are not frames."""


def frame(kind: int, data: bytes) -> bytes:
    """One frame."""
    return bytes((kind, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def message(**fields: Any) -> bytes:
    """One JSON frame."""
    return frame(MESSAGE, json.dumps(fields, separators=(",", ":")).encode())


class Decoder:
    """Cuts a byte stream into frames, however it arrives."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that `data` completes."""
        self._pending += data
        while len(self._pending) >= HEADER:
            length = int.from_bytes(self._pending[4:HEADER], "big")
            if length > LONGEST:
                raise BrokenStream(f"frame of {length} bytes")
            if len(self._pending) < HEADER + length:
                return
            kind, body = self._pending[0], bytes(self._pending[HEADER : HEADER + length])
            del self._pending[: HEADER + length]
            yield kind, body
