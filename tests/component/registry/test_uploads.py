"""Upload sessions without HTTP: pauses, expiry, what a kill leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_client.oci.digest import digest_of
from runtime.http.messages import HttpError
from runtime.registry.records import Records
from runtime.registry.uploads import Uploads
from runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


def opened(store: Store, **options: float) -> Uploads:
    return Uploads(store.content, Records(store.db), **options)


def send(uploads: Uploads, upload: str, data: bytes) -> int:
    with uploads.session("a/b", upload) as session:
        session.receive([data])
        return session.offset


def finish(uploads: Uploads, upload: str, data: bytes) -> None:
    with uploads.session("a/b", upload) as session:
        uploads.finish(session, digest_of(data))


def test_a_session_that_pauses_has_no_file_open_and_goes_on_later(store: Store) -> None:
    uploads = opened(store, pause=0.0)
    upload = uploads.begin("a/b")
    send(uploads, upload, b"one ")
    before = len(os.listdir("/proc/self/fd"))
    uploads.expire()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert send(uploads, upload, b"two") == 7
    finish(uploads, upload, b"one two")
    assert store.content.read(digest_of(b"one two")) == b"one two"


def test_a_session_nobody_continues_ends_with_its_file(store: Store) -> None:
    uploads = opened(store, pause=0.0, lifetime=0.0)
    upload = uploads.begin("a/b")
    send(uploads, upload, b"never finished")
    uploads.begin("a/b")
    assert os.listdir(store.content.ingest) == []
    with pytest.raises(HttpError) as caught, uploads.session("a/b", upload):
        pass
    assert caught.value.code == "BLOB_UPLOAD_UNKNOWN"


def test_beginning_an_upload_opens_nothing(store: Store) -> None:
    uploads = opened(store)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        uploads.begin("a/b")
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_killed_process_had_received_is_there_for_the_next(store: Store) -> None:
    first = opened(store)
    upload = first.begin("a/b")
    send(first, upload, b"one ")
    first.close()  # a kill closes the files as well
    second = opened(store)
    assert send(second, upload, b"two") == 7
    finish(second, upload, b"one two")
    assert store.content.has(digest_of(b"one two"))


def test_a_wrong_digest_ends_the_session_and_leaves_nothing(store: Store) -> None:
    uploads = opened(store)
    upload = uploads.begin("a/b")
    send(uploads, upload, b"content")
    with pytest.raises(HttpError, match="did not match"):
        finish(uploads, upload, b"other content")
    assert os.listdir(store.content.ingest) == []
    assert not store.content.has(digest_of(b"content"))
