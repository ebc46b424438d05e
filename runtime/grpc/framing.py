"""Messages within a stream's bytes: one byte that says whether it is compressed, four of length, the message."""

from __future__ import annotations

from runtime.grpc.status import Code, GrpcError

MOST = 16 << 20  # bytes of one message; BuildKit's own limit
_HEAD = 5


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


class Unframer:
    """Takes in bytes as they come, gives out whole messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. GrpcError for one that is too large or compressed."""
        self._held += data
        found = []
        at = 0
        while len(self._held) - at >= _HEAD:
            size = int.from_bytes(self._held[at + 1 : at + _HEAD])
            if self._held[at]:
                raise GrpcError(Code.UNIMPLEMENTED, "compressed messages are not understood here")
            if size > MOST:
                raise GrpcError(Code.RESOURCE_EXHAUSTED, f"a message of {size} bytes is larger than {MOST}")
            if len(self._held) - at < _HEAD + size:
                break
            found.append(bytes(self._held[at + _HEAD : at + _HEAD + size]))
            at += _HEAD + size
        del self._held[:at]
        return found

    @property
    def incomplete(self) -> int:
        """How many bytes of a message that is not complete are held."""
        return len(self._held)
