"""A disk without room: one clear error, nothing half, and all is well once there is room."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import HostFault
from runtime.images import Images
from runtime.linux import mounts
from runtime.store import Store
from tests.support.store import Entry, FakeRegistry, docker_archive, make_image, make_tar

pytestmark = pytest.mark.linux

BIG = make_tar(Entry("big", os.urandom(6_000_000)))
NAME = "registry.example.com/shop/app:1"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB with 4 MB left: room for an empty store, not for what is put into it."""
    where = tmp_path / "small"
    where.mkdir()
    mounts.mount("tmpfs", str(where), "tmpfs", 0, "size=24m")
    try:
        (where / "ballast").write_bytes(bytes(20 << 20))
        yield where
    finally:
        mounts.umount(str(where), mounts.MNT_DETACH)


def check_empty(store: Store) -> None:
    store.leases.release()
    store.collect()
    assert store.content.digests() == []
    assert os.listdir(store.snapshots.directory) == os.listdir(store.snapshots.drafts) == []


def test_a_pull_without_room_leaves_no_image_and_works_with_room(small: Path) -> None:
    registry = FakeRegistry()
    made = make_image(BIG)
    registry.add("shop/app", "1", made)
    with Store.open(str(small / "store")) as store:
        images = Images(store, registry)
        with pytest.raises(HostFault, match="No space left") as caught:
            images.pull(NAME)
        assert "free some space" in caught.value.hint
        assert images.list() == ()
        (small / "ballast").unlink()
        assert images.pull(NAME).id == made.id


def test_a_load_without_room_leaves_nothing(small: Path) -> None:
    with Store.open(str(small / "store")) as store:
        with pytest.raises(HostFault, match="No space left"):
            Images(store).load(io.BytesIO(docker_archive(make_image(BIG), "a:1")))
        check_empty(store)


def test_unpacking_without_room_leaves_no_draft(small: Path) -> None:
    layer = make_tar(Entry("zeros", bytes(8_000_000)))  # small as a blob, too large unpacked
    registry = FakeRegistry()
    registry.add("shop/app", "1", make_image(layer))
    with Store.open(str(small / "store")) as store:
        with pytest.raises(HostFault, match="No space left"):
            Images(store, registry).pull(NAME)
        check_empty(store)
