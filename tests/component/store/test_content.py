"""Blobs are there, whole and verified, or not at all."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_client.oci.digest import Digest, digest_of
from runtime.errors import HostFault, InvalidInput, NotFound
from runtime.store import Store

DATA = random.Random(1).randbytes(200_000)  # the same in every worker of pytest-xdist


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


def left_in(store: Store) -> list[str]:
    return os.listdir(store.content.ingest)


def test_what_is_put_is_read_back_under_its_digest(store: Store) -> None:
    digest = store.content.put(DATA)
    assert digest == digest_of(DATA)
    assert store.content.has(digest)
    assert store.content.size(digest) == len(DATA)
    assert store.content.read(digest) == DATA
    assert Path(store.content.path(digest)).read_bytes() == DATA
    assert store.content.put(DATA) == digest
    assert left_in(store) == []


def test_a_blob_that_is_not_here_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="sha256:0000"):
        store.content.read(Digest("sha256:" + "0" * 64))


def test_a_blob_that_was_damaged_on_disk_is_not_handed_out(store: Store) -> None:
    digest = store.content.put(DATA)
    Path(store.content.path(digest)).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(InvalidInput, match="damaged"):
        store.content.read(digest)


def test_a_blob_above_the_limit_is_not_read_into_memory(store: Store) -> None:
    with pytest.raises(InvalidInput, match="larger than 1000 bytes"):
        store.content.read(store.content.put(DATA), 1000)


@pytest.mark.parametrize(
    ("expected", "size", "written", "message"),
    [
        (digest_of(DATA), None, DATA + b"!", "does not match its digest"),
        (digest_of(DATA), len(DATA), DATA[:-1], "of the 200000 bytes"),
        (digest_of(DATA), len(DATA), DATA + b"!", "more than the 200000 bytes"),
    ],
    ids=["other", "short", "long"],
)
def test_wrong_content_never_becomes_a_blob(
    store: Store, expected: Digest, size: int | None, written: bytes, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message), store.content.writer(expected, size) as writer:
        writer.write(written)
        writer.commit()
    assert not store.content.has(expected)
    assert left_in(store) == []


def test_sha512_is_verified_too(store: Store) -> None:
    import hashlib

    digest = Digest("sha512:" + hashlib.sha512(DATA).hexdigest())
    with store.content.writer(digest) as writer:
        writer.write(DATA)
        assert writer.commit() == digest
    assert store.content.read(digest) == DATA


def test_a_writer_goes_on_where_an_earlier_one_stopped(store: Store) -> None:
    digest = digest_of(DATA)
    with store.content.writer(digest, len(DATA), resume_key=digest) as writer:
        writer.write(DATA[:70_000])
    assert not store.content.has(digest)
    with store.content.writer(digest, len(DATA), resume_key=digest) as writer:
        assert writer.offset == 70_000
        writer.write(DATA[70_000:])
        writer.commit()
    assert store.content.read(digest) == DATA
    assert left_in(store) == []


def test_a_partial_file_that_turns_out_wrong_is_begun_anew(store: Store) -> None:
    digest = digest_of(DATA)
    with store.content.writer(digest, len(DATA), resume_key=digest) as writer:
        writer.write(b"something else")
    with pytest.raises(InvalidInput), store.content.writer(digest, len(DATA), resume_key=digest) as writer:
        writer.write(DATA[writer.offset :])
        writer.commit()
    with store.content.writer(digest, len(DATA), resume_key=digest) as writer:
        assert writer.offset == 0
        writer.write(DATA)
        writer.commit()
    assert store.content.read(digest) == DATA


def test_two_writers_of_one_blob_do_not_disturb_each_other(store: Store) -> None:
    digest = digest_of(DATA)
    with store.content.writer(digest, len(DATA), resume_key=digest) as first:
        first.write(DATA[:1000])
        with store.content.writer(digest, len(DATA), resume_key=digest) as second:
            assert second.offset == 0
            second.write(DATA)
            second.commit()
        first.write(DATA[1000:])
        assert first.commit() == digest
    assert store.content.read(digest) == DATA
    assert left_in(store) == []


WRITE = """
import sys
from runtime.store import Store
from registry_client.oci.digest import digest_of
data = bytes(range(256)) * 4000
with Store.open(sys.argv[1]) as store:
    with store.content.writer(digest_of(data), len(data), resume_key="the same") as writer:
        for at in range(writer.offset, len(data), 10_000):
            writer.write(data[at : at + 10_000])
        writer.commit()
    assert store.content.read(digest_of(data)) == data
"""


def test_ten_processes_write_the_same_blob_at_once(store: Store) -> None:
    arguments = [sys.executable, "-c", WRITE, store.root]
    running = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(10)]
    errors = [process.communicate()[1] for process in running]
    assert [(process.returncode, error) for process, error in zip(running, errors)] == [(0, b"")] * 10
    assert left_in(store) == []


def test_a_store_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostFault, match="cannot open the store"):
        Store.open(str(tmp_path / "file" / "store"))


def test_a_new_store_is_a_valid_empty_oci_layout(store: Store) -> None:
    import json

    assert json.loads(Path(store.root, "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(Path(store.root, "index.json").read_text())["manifests"] == []
