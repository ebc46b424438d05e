"""Compress and decompress layer streams. What comes out depends on the bytes that go in and on nothing else.

gzip has a fixed header (no name, no time, system "unknown") and a fixed level; ISA-L does it where it is installed,
at several times zlib's speed. Decompression finds out by itself what it has.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

from runtime.cancel import Sink
from runtime.errors import InvalidInput, Unsupported

_CHUNK = 1 << 20
# Level 3 gives other bytes on processors with AVX2 and with AVX-512; 0 to 2 are the same on all with SSE 4.2.
_ISAL_LEVEL = 2
_ZLIB_LEVEL = 6
_ZSTD_LEVEL = 3
_ZSTD_WINDOW = 128 << 20  # what the zstd command accepts without asking; larger ones only eat memory
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Compressor(Protocol):
    """A writable stream that passes what it is given on, compressed. `close` ends the stream, not what is behind it.

    As a context manager it is closed at the end of the block, or abandoned if that fails.
    """

    def write(self, data: bytes, /) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Compressor: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...


class _Stream:
    """Compresses as the data comes."""

    def __init__(self, out: Sink, encoder: _Encoder) -> None:
        self._out, self._encoder = out, encoder

    def write(self, data: bytes) -> int:
        if encoded := self._encoder.compress(data):
            self._out.write(encoded)
        return len(data)

    def close(self) -> None:
        self._out.write(self._encoder.flush())

    def __enter__(self) -> Compressor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Unchanged:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _plain(out: Sink, level: int | None) -> Compressor:
    """Nothing is compressed, at whatever level."""
    return _Stream(out, _Unchanged())


def _gzip(out: Sink, level: int | None) -> Compressor:
    from runtime.store.layers.blocks import GzipBlocks

    # ISA-L has no levels to compare with zlib's, so a level that was asked for is zlib's.
    engine, level = deflate_engine() if level is None else (zlib, level)
    return GzipBlocks(out, engine, level)


def _zstd(out: Sink, level: int | None) -> Compressor:
    """One frame, whose bytes do not depend on the pieces that come in. One thread: frames or jobs of a size that several
    threads could hold would cost 2 to 8 % of size."""
    import zstandard

    level = _ZSTD_LEVEL if level is None else level
    return _Stream(out, zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj())


_KINDS: dict[str, Callable[[Sink, int | None], Compressor]] = {"": _plain, "gzip": _gzip, "zstd": _zstd}


def deflate_engine() -> tuple[Any, int]:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib, _ZLIB_LEVEL
    return isal_zlib, _ISAL_LEVEL


def compress(out: Sink, kind: str, level: int | None = None) -> Compressor:
    """A stream that compresses into `out`: kind is `gzip`, `zstd` or "" for not at all. No `level` is our own choice."""
    if kind not in _KINDS:
        raise Unsupported(f"unknown compression {kind!r}", hint="use gzip, zstd or uncompressed")
    return _KINDS[kind](out, level)


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
        self._engine, _ = deflate_engine()
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
