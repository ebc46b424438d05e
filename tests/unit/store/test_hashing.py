"""Large files are hashed on a thread of their own: with the same result, and the thread ends with its writer."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading

import pytest

from runtime.store.layers import LayerWriter
from runtime.store.layers.pipe import Hashing


class File:
    st_uid, st_gid, st_nlink, st_ino, st_dev, st_rdev = 7, 8, 1, 1, 1, 0
    st_mtime_ns = 9 * 10**9
    st_mode = stat.S_IFREG | 0o640

    def __init__(self, size: int) -> None:
        self.st_size = size


def hash_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hash"]


def test_pieces_are_hashed_in_order() -> None:
    data = [os.urandom(1000 + number) for number in range(300)]
    with Hashing(hashlib.sha256()) as hashing:
        for each in data:
            hashing.update(each)
        assert hashing.digest() == hashlib.sha256(b"".join(data)).digest()
    assert hash_threads() == []


def test_a_hash_nobody_asks_for_ends_with_its_block() -> None:
    with pytest.raises(ZeroDivisionError), Hashing(hashlib.sha256()) as hashing:
        hashing.update(b"data")
        raise ZeroDivisionError
    assert hash_threads() == []


def test_a_large_layers_diff_id_is_the_digest_of_its_bytes() -> None:
    out, piece = io.BytesIO(), os.urandom(3 << 20)
    with LayerWriter(out) as writer:  # type: ignore[arg-type]
        for number in range(40):
            writer.add_file(b"small%d" % number, 0o600, 0, 0, 0, piece[: number * 1000])
        writer.add(b"large", File(4 * len(piece) + 5))
        for _ in range(4):
            writer.write(piece)
        assert hash_threads()
        writer.write(piece[:5])
        info = writer.finish()
    assert info.diff_id == "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()
    assert info.size == len(out.getvalue())
    assert hash_threads() == []


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000])
@pytest.mark.parametrize("name", [b"plain", b"d/" * 60 + b"long", b"x" * 300])
def test_a_plain_file_is_written_as_any_other(name: bytes, size: int) -> None:
    one, other, data = io.BytesIO(), io.BytesIO(), os.urandom(size)
    for out, epoch in ((one, 8), (other, 8)):
        writer = LayerWriter(out, epoch=epoch)  # type: ignore[arg-type]
        if out is one:
            writer.add(name, File(size), data)
        else:
            writer.add_file(name, 0o640, 7, 8, File.st_mtime_ns, data)
        writer.finish()
    assert one.getvalue() == other.getvalue()
