"""Compressed layers: the tools read them, the bytes do not vary, damage and bombs are noticed."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import threading
import tracemalloc
import zlib

import pytest
import zstandard

from runtime.errors import InvalidInput, Unsupported
from runtime.store.layers import compress, decompress
from runtime.store.layers.blocks import BLOCK, GzipBlocks
from runtime.store.layers.pipe import Ahead, Piped

DATA = b"".join(b"line %d of a file that compresses well\n" % n for n in range(50_000)) + os.urandom(100_000)


def compressed(kind: str, data: bytes = DATA, piece: int = 70_000) -> bytes:
    out = io.BytesIO()
    stream = compress(out, kind)
    for at in range(0, len(data), piece):
        stream.write(data[at : at + piece])
    stream.close()
    return out.getvalue()


@pytest.mark.parametrize("kind", ["gzip", "zstd", ""])
def test_what_was_compressed_is_read_back(kind: str) -> None:
    assert decompress(io.BytesIO(compressed(kind))).read() == DATA
    assert decompress(io.BytesIO(compressed(kind, b""))).read() == b""


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_the_same_input_gives_the_same_bytes(kind: str) -> None:
    assert compressed(kind) == compressed(kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_the_bytes_do_not_depend_on_the_pieces_that_come_in(kind: str) -> None:
    pieces = (1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK)
    data = DATA[: 2 * BLOCK + 1234]
    packed = {piece: compressed(kind, data if piece > 1 else data[:5000], piece) for piece in pieces}
    assert packed.pop(1) == compressed(kind, data[:5000])
    assert len(set(packed.values())) == 1


@pytest.mark.parametrize("engine", ["isal", "zlib"])
def test_the_bytes_do_not_depend_on_the_number_of_threads(engine: str) -> None:
    module = pytest.importorskip("isal.isal_zlib") if engine == "isal" else zlib

    def packed(threads: int) -> bytes:
        out = io.BytesIO()
        with GzipBlocks(out, module, 1, threads) as stream:
            stream.write(DATA * 3)
        return out.getvalue()

    assert packed(1) == packed(2) == packed(7)
    assert gzip.decompress(packed(3)) == DATA * 3


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_blocks_end_where_the_data_ends(size: int) -> None:
    data = (DATA * 2)[:size]
    packed = compressed("gzip", data)
    assert gzip.decompress(packed) == data
    assert subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=True).stdout == data
    assert int.from_bytes(packed[-4:], "little") == size


def test_a_failure_behind_the_blocks_is_raised_and_leaves_no_thread() -> None:
    class Full:
        def write(self, data: bytes) -> None:
            if len(data) > 10:
                raise OSError(28, "no space")

    before = threading.active_count()
    with pytest.raises(OSError, match="no space"), compress(Full(), "gzip") as stream:
        for _ in range(100):
            stream.write(os.urandom(BLOCK))
    assert threading.active_count() == before


def test_what_is_abandoned_has_no_end() -> None:
    out = io.BytesIO()
    with pytest.raises(RuntimeError, match="reader"), compress(out, "gzip") as stream:
        stream.write(DATA)
        raise RuntimeError("the reader failed")
    with pytest.raises(InvalidInput, match="ends in the middle"):
        decompress(io.BytesIO(out.getvalue())).read()


def test_gzip_has_no_time_no_name_and_no_system_in_its_header() -> None:
    assert compressed("gzip")[:10] == bytes.fromhex("1f8b08000000000000ff")
    assert subprocess.run(["gzip", "-t"], input=compressed("gzip"), capture_output=True).returncode == 0
    assert gzip.decompress(compressed("gzip")) == DATA


def test_zlib_does_it_where_isal_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.store.layers import compression

    monkeypatch.setattr(compression, "deflate_engine", lambda: (zlib, 6))
    packed = compressed("gzip")
    assert gzip.decompress(packed) == DATA
    assert decompress(io.BytesIO(packed)).read() == DATA


def test_members_and_frames_in_a_row_are_one_stream() -> None:
    many = gzip.compress(b"one ") + gzip.compress(b"two ") + gzip.compress(b"three") + bytes(512)
    assert decompress(io.BytesIO(many)).read() == b"one two three"
    encoder = zstandard.ZstdCompressor()
    assert decompress(io.BytesIO(encoder.compress(b"one ") + encoder.compress(b"two"))).read() == b"one two"


# A zstd stream that was cut is noticed by the tar and the digest, not here: the library does not tell.
@pytest.mark.parametrize(("kind", "damage"), [("gzip", "cut"), ("gzip", "changed"), ("zstd", "changed")])
def test_damage_is_noticed(kind: str, damage: str) -> None:
    packed = bytearray(compressed(kind))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(InvalidInput):
        decompress(io.BytesIO(bytes(packed))).read()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_is_not_unfolded_in_memory(kind: str) -> None:
    bomb = compressed(kind, bytes(64 << 20), 1 << 20)
    assert len(bomb) < 1 << 20
    stream = decompress(io.BytesIO(bomb))
    tracemalloc.start()
    try:
        total = 0
        while chunk := stream.read(1 << 16):
            assert len(chunk) <= 1 << 16
            total += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 64 << 20
    assert peak < 8 << 20


def test_an_unknown_compression_is_named() -> None:
    with pytest.raises(Unsupported, match="'lz4'"):
        compress(io.BytesIO(), "lz4")


def test_a_pipe_passes_everything_on_and_raises_what_went_wrong_behind_it() -> None:
    out = io.BytesIO()
    with Piped(out) as pipe:
        for _ in range(100):
            pipe.write(b"abc")
    assert out.getvalue() == b"abc" * 100

    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"), Piped(Full()) as pipe:
        for _ in range(1000):
            pipe.write(b"abc")


def test_reading_ahead_gives_the_same_bytes_and_the_same_errors() -> None:
    with Ahead(decompress(io.BytesIO(compressed("gzip")))) as ahead:
        assert ahead.read(10) + ahead.read() == DATA
        assert ahead.read(1) == ahead.read() == b""
    with pytest.raises(InvalidInput, match="ends in the middle"):
        with Ahead(decompress(io.BytesIO(compressed("gzip")[:-100]))) as ahead:
            ahead.read()


def test_reading_ahead_stops_when_its_user_does() -> None:
    class Endless:
        reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            return b"x" * size

    source = Endless()
    with Ahead(source) as ahead:  # type: ignore[arg-type]
        assert ahead.read(5) == b"xxxxx"
    before = source.reads
    assert before < 100
    assert source.reads == before
