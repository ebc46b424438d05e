"""Compress and decompress layer streams. What comes out depends on the bytes that go in and on nothing else.

gzip has a fixed header (no name, no time, system "unknown") and a fixed level; ISA-L does it where it is installed,
at several times zlib's speed. Decompression finds out by itself what it has.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from runtime.errors import InvalidInput, Unsupported

_CHUNK = 1 << 20
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: no flags, no time, system 255
_ISAL_LEVEL = 2
_ZLIB_LEVEL = 6
_ZSTD_LEVEL = 3
_ZSTD_WINDOW = 128 << 20  # what the zstd command accepts without asking; larger ones only eat memory
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


class Compressor:
    """A writable stream that passes what it is given on to `out`, compressed. `close` ends the stream, not `out`."""

    def __init__(self, out: Sink, kind: str, level: int | None = None) -> None:
        self._out = out
        self._encoder = _ENCODERS[kind](level)

    def write(self, data: bytes) -> int:
        if encoded := self._encoder.encode(data):
            self._out.write(encoded)
        return len(data)

    def close(self) -> None:
        self._out.write(self._encoder.finish())


class _Encoder(Protocol):
    def encode(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class _Plain:
    def __init__(self, level: int | None) -> None:
        """Nothing is compressed, at whatever level."""

    def encode(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Gzip:
    def __init__(self, level: int | None) -> None:
        # ISA-L has no levels to compare with zlib's, so a level that was asked for is zlib's.
        engine, level = _deflate_engine() if level is None else (zlib, level)
        self._deflate = engine.compressobj(level, zlib.DEFLATED, -15)
        self._crc32: Callable[[bytes, int], int] = engine.crc32
        self._crc = self._size = 0
        self._start = _GZIP_HEADER

    def encode(self, data: bytes) -> bytes:
        self._crc = self._crc32(data, self._crc)
        self._size += len(data)
        start, self._start = self._start, b""
        encoded: bytes = self._deflate.compress(data)
        return start + encoded

    def finish(self) -> bytes:
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        rest: bytes = self._deflate.flush()
        return self._start + rest + trailer


class _Zstd:
    def __init__(self, level: int | None) -> None:
        import zstandard

        level = _ZSTD_LEVEL if level is None else level
        self._encoder = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()

    def encode(self, data: bytes) -> bytes:
        return self._encoder.compress(data)

    def finish(self) -> bytes:
        return self._encoder.flush()


_ENCODERS: dict[str, Callable[[int | None], _Encoder]] = {"": _Plain, "gzip": _Gzip, "zstd": _Zstd}


def _deflate_engine() -> tuple[Any, int]:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib, _ZLIB_LEVEL
    return isal_zlib, _ISAL_LEVEL


def compress(out: Sink, kind: str, level: int | None = None) -> Compressor:
    """A stream that compresses into `out`: kind is `gzip`, `zstd` or "" for not at all. No `level` is our own choice."""
    if kind not in _ENCODERS:
        raise Unsupported(f"unknown compression {kind!r}", hint="use gzip, zstd or uncompressed")
    return Compressor(out, kind, level)


def decompress(stream: BinaryIO) -> BinaryIO:
    """A readable stream of what `stream` holds, whether gzip, zstd or plain."""
    return _Decompressed(stream)  # type: ignore[return-value]


class _Decompressed:
    """The `read` half of a stream. Several gzip members or zstd frames in a row are one stream.

    A few bytes may stand for gigabytes, so every decoder is asked for a limited amount at a time.
    """

    def __init__(self, stream: BinaryIO) -> None:
        start = _read_at_least(stream, 4)
        self._source: _Source = _Joined(start, stream)
        if start.startswith(_GZIP_MAGIC):
            self._source = _Gunzip(self._source)
        elif start.startswith(_ZSTD_MAGIC):
            import zstandard

            decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            source = cast(BinaryIO, self._source)
            self._source = decoder.stream_reader(source, read_across_frames=True)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        try:
            return self._source.read(size)
        except InvalidInput:
            raise
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("zlib", "isal", "igzip_lib", "zstandard"):
                raise
            raise InvalidInput(f"the compressed layer is damaged: {error}") from error


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Joined:
    """What was already read, and then the rest."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        self._start, self._stream = start, stream

    def read(self, size: int) -> bytes:
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        return self._stream.read(size)


class _Gunzip:
    def __init__(self, source: _Source) -> None:
        self._source = source
        self._engine, _ = _deflate_engine()
        self._decoder = self._engine.decompressobj(31)
        self._waiting = b""
        self._started = False

    def read(self, size: int) -> bytes:
        while True:
            data = self._waiting or self._source.read(_CHUNK)
            if not self._started:
                data = data.lstrip(b"\0")  # padding between and behind members
            if not data:
                if self._started:
                    raise InvalidInput("the compressed layer ends in the middle")
                return b""
            self._started = True
            decoded: bytes = self._decoder.decompress(data, size)
            self._waiting = self._decoder.unconsumed_tail
            if self._decoder.eof:
                self._waiting = self._decoder.unused_data
                self._decoder, self._started = self._engine.decompressobj(31), False
            if decoded:
                return decoded


def _read_at_least(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(_CHUNK)
    while data and len(data) < count and (more := stream.read(_CHUNK)):
        data += more
    return data
