"""A directory as the place of a cache: what is read is what was announced."""

from __future__ import annotations

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.sharing.places import DirectoryPlace, read_blob
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import make_manifest
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound

DATA = b"some bytes"
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))


@pytest.fixture
def place(tmp_path: Path) -> DirectoryPlace:
    made = DirectoryPlace(str(tmp_path / "layout"), cancel=Cancel())
    made.put(BLOB, lambda offset: io.BytesIO(DATA[offset:]))
    return made


def test_what_was_put_is_read_and_named(place: DirectoryPlace, tmp_path: Path) -> None:
    manifest = make_manifest(BLOB, (BLOB,))
    place.name(manifest)
    assert read_blob(place, BLOB, 100) == DATA
    assert [found.raw for found in place.manifests()] == [manifest.raw]
    by_digest = DirectoryPlace(str(tmp_path / "layout"), digest=manifest.digest, cancel=Cancel())
    assert [found.raw for found in by_digest.manifests()] == [manifest.raw]
    with pytest.raises(NotFound):
        DirectoryPlace(str(tmp_path / "layout"), "other", cancel=Cancel()).manifests()


def test_what_killed_exports_left_goes_with_a_later_one(place: DirectoryPlace, tmp_path: Path) -> None:
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    for name, age in (("old", 7200), ("growing", 5)):
        (blobs / f"{'0' * 64}.{name}").write_bytes(b"half")
        os.utime(blobs / f"{'0' * 64}.{name}", (time.time() - age,) * 2)
    place.name(make_manifest(BLOB, (BLOB,)))
    assert [file.name[65:] for file in blobs.glob("*.*")] == ["growing"]
    assert read_blob(place, BLOB, 100) == DATA


def test_tags_named_at_the_same_time_are_all_there(place: DirectoryPlace, tmp_path: Path) -> None:
    manifest = make_manifest(BLOB, (BLOB,))
    tags = [f"t{number}" for number in range(20)]

    def name(tag: str) -> None:
        DirectoryPlace(str(tmp_path / "layout"), tag, cancel=Cancel()).name(manifest)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(name, tags))
    for tag in tags:
        assert DirectoryPlace(str(tmp_path / "layout"), tag, cancel=Cancel()).manifests()


@pytest.mark.parametrize("found", [DATA + b"!", DATA[:-1], b"same size.", b""])
def test_other_bytes_are_refused(place: DirectoryPlace, tmp_path: Path, found: bytes) -> None:
    (tmp_path / "layout" / "blobs" / BLOB.digest.replace(":", "/")).write_bytes(found)
    with pytest.raises(InvalidInput, match="damaged"):
        read_blob(place, BLOB, 100)


def test_a_blob_that_is_announced_too_large_is_not_read(place: DirectoryPlace) -> None:
    with pytest.raises(InvalidInput, match="more than 5"):
        read_blob(place, BLOB, 5)


@pytest.mark.parametrize(
    "index", ["", "[]", "{", '{"manifests": 5}', '{"manifests": [{}]}', '{"manifests": [[]]}']
)
def test_a_damaged_index_is_told(place: DirectoryPlace, tmp_path: Path, index: str) -> None:
    (tmp_path / "layout" / "index.json").write_text(index)
    with pytest.raises(InvalidInput, match="damaged"):
        place.manifests()
    assert not list((tmp_path / "layout" / "blobs" / "sha256").glob("*.*"))  # nothing half written
