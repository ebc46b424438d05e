"""The first opening after a boot: what is whole stays, what lost data with the power does not."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from runtime.images import Images
from runtime.store import Store
from tests.linux.store.test_collect import make, make_image
from tests.support.store import Entry, docker_archive, make_tar
from tests.support.store import make_image as image_of

pytestmark = pytest.mark.linux


def booted_anew(store: Store) -> Store:
    """The same store as a process of the next boot finds it."""
    with store.db.transaction() as connection:
        for table in ("snapshots", "images"):
            connection.execute(f"UPDATE {table} SET boot = 'an-earlier-one' WHERE boot <> ''")
    store.leases.release()
    return Store.open(store.root)


def unsettled(store: Store) -> int:
    sql = "SELECT (SELECT count(*) FROM snapshots WHERE boot <> '') + (SELECT count(*) FROM images WHERE boot <> '') AS n"
    return int(store.db.read(sql)[0]["n"])


def damage(store: Store, snapshot: str) -> None:
    """What a power loss does to a file that was not on the disk yet."""
    path = Path(store.snapshots.path(snapshot))
    next(each for each in path.iterdir() if each.is_file()).write_bytes(b"")


def test_after_an_orderly_shutdown_everything_is_there(store: Store) -> None:
    image = make_image(store, "a", "b", tag="kept:1")
    with booted_anew(store) as later:
        assert unsettled(later) == 0
        found = Images(later).get("kept:1")
        assert found.id == image
        assert Images(later).snapshot(found) is not None
        assert len(Images(later).manifest(found).layers) == 2


def test_a_layer_that_lost_data_goes_with_all_that_stands_on_it(store: Store) -> None:
    make_image(store, "a", tag="good:1")
    make_image(store, "a", "b", "c", tag="bad:1")
    images = Images(store)
    top = images.snapshot(images.get("bad:1"))
    assert top is not None
    _, middle, bottom = store.snapshots.ancestry(top)
    damage(store, middle)
    with booted_anew(store) as later:
        assert Images(later).find("bad:1") is None
        assert Images(later).get("good:1").tags
        assert later.snapshots.find(bottom) is not None
        assert later.snapshots.find(middle) is None
        assert later.snapshots.find(top) is None
        later.collect()
        assert os.listdir(later.snapshots.directory) == [bottom]
        assert later.db.read("SELECT * FROM images WHERE boot <> ''") == []


def test_an_image_that_has_its_blobs_is_unpacked_again(store: Store) -> None:
    images = Images(store)
    made = image_of(make_tar(Entry("f", b"data" * 1000)))
    (image,) = images.load(io.BytesIO(docker_archive(made, "loaded:1")))
    first = images.snapshot(image)
    assert first is not None
    damage(store, first)
    with booted_anew(store) as later:
        again = Images(later).snapshot(Images(later).get("loaded:1"))
        assert again is not None and again != first
        assert Path(later.snapshots.path(again), "f").read_bytes() == b"data" * 1000
        later.collect()
        assert os.listdir(later.snapshots.directory) == [again]


def test_a_snapshot_nobody_hashed_cannot_be_trusted(store: Store) -> None:
    with store.snapshots.prepare() as draft:
        unhashed = draft.commit()
    with booted_anew(store) as later:
        assert later.snapshots.find(unhashed.id) is None


def test_what_was_settled_is_not_looked_at_again(store: Store) -> None:
    settled = make(store, None, "a")
    store.settle()
    damage(store, settled.id)
    with booted_anew(store) as later:
        assert later.snapshots.find(settled.id) is not None
