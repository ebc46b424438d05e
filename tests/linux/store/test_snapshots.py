"""Snapshots as the kernel merges them, and what the database says of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from registry_client.oci.digest import Digest, chain_ids
from runtime.store import Store
from runtime.store.layers import EMPTY_LAYER, hash_layer
from runtime.store.snapshots import Snapshot

pytestmark = pytest.mark.linux


def make(store: Store, parent: str | None, name: str, *, diff_id: Digest | None = None) -> Snapshot:
    with store.snapshots.prepare(parent) as draft:
        Path(draft.upper, name).write_text(name)
        return draft.commit(diff_id=diff_id or hash_layer(draft.upper).diff_id)


def test_a_step_sees_the_layers_below_and_leaves_them_alone(store: Store) -> None:
    base = make(store, None, "a")
    with store.snapshots.prepare(base.id) as draft:
        with draft.merged() as root:
            assert os.listdir(root) == ["a"]
            os.unlink(f"{root}/a")
            Path(root, "b").touch()
        top = draft.commit()
    with store.snapshots.mounted(top.id) as root:
        assert os.listdir(root) == ["b"]
        with pytest.raises(OSError, match="Read-only"):
            Path(root, "c").touch()
    with store.snapshots.mounted(base.id) as root:
        assert os.listdir(root) == ["a"]
    assert store.snapshots.lowers(top.id) == (store.snapshots.path(top.id), store.snapshots.path(base.id))
    assert os.listdir(store.snapshots.mounts) == []


def test_a_draft_can_be_merged_more_than_once(store: Store) -> None:
    with store.snapshots.prepare(make(store, None, "a").id) as draft:
        for name in "xyz":
            with draft.merged() as root:
                Path(root, name).touch()
        assert sorted(os.listdir(draft.upper)) == ["x", "y", "z"]


def test_a_draft_that_is_not_committed_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.snapshots.prepare() as draft:
        Path(draft.upper, "x").touch()
        raise ZeroDivisionError
    assert os.listdir(store.snapshots.drafts) == []
    assert os.listdir(store.snapshots.directory) == []


def test_the_root_directory_keeps_its_attributes_through_the_layers(store: Store) -> None:
    with store.snapshots.prepare() as draft:
        os.chown(draft.upper, 11, 22)
        os.chmod(draft.upper, 0o1711)
        base = draft.commit()
    with store.snapshots.prepare(base.id) as draft:
        status = os.stat(draft.upper)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1711, 11, 22)


def test_a_snapshot_is_found_by_its_chain_once_it_was_hashed(store: Store) -> None:
    base = make(store, None, "a")
    with store.snapshots.prepare(base.id) as draft:
        Path(draft.upper, "b").touch()
        info = hash_layer(draft.upper)
        top = draft.commit()
    assert top.chain_id is None
    assert base.diff_id is not None
    named = store.snapshots.identify(top.id, info.diff_id, info.size)
    chain = chain_ids((base.diff_id, info.diff_id))
    assert (named.diff_id, named.chain_id, named.size) == (info.diff_id, chain[1], info.size)
    assert store.snapshots.by_chain(chain[1]) == named
    assert store.snapshots.by_chain(info.diff_id) is None  # without the base it is another chain


def test_an_empty_step_is_a_layer_but_no_snapshot_of_its_own(store: Store) -> None:
    base = make(store, None, "a")
    assert base.diff_id is not None
    with store.snapshots.prepare(base.id) as draft:
        same = draft.commit(empty=True)
    assert same.id == base.id
    store.snapshots.link((base.diff_id, EMPTY_LAYER.diff_id), base.id)
    found = store.snapshots.by_chain(chain_ids((base.diff_id, EMPTY_LAYER.diff_id))[1])
    assert found is not None and found.id == base.id
    # What is made on top of it is known by each way to get there that somebody took.
    diff_id = Digest("sha256:" + "b" * 64)
    top = make(store, base.id, "b", diff_id=diff_id)
    ways = [chain_ids(below)[-1] for below in ((base.diff_id,), (base.diff_id, EMPTY_LAYER.diff_id))]
    for below in ways:
        store.snapshots.identify(top.id, diff_id, below=below)
    for below in ways:
        known = store.snapshots.by_chain(chain_ids((below, diff_id))[-1])
        assert known is not None and known.id == top.id


def test_the_first_of_two_snapshots_of_a_chain_stays(store: Store) -> None:
    first, second = (make(store, None, "a", diff_id=Digest("sha256:" + "a" * 64)) for _ in range(2))
    assert first.id != second.id
    found = store.snapshots.by_chain(Digest("sha256:" + "a" * 64))
    assert found is not None and found.id == first.id


def test_a_snapshot_whose_files_are_gone_is_not_handed_out(store: Store) -> None:
    import shutil

    made = make(store, None, "a", diff_id=Digest("sha256:" + "a" * 64))
    shutil.rmtree(os.path.dirname(store.snapshots.path(made.id)))
    assert store.snapshots.by_chain(Digest("sha256:" + "a" * 64)) is None


@pytest.mark.parametrize("odd", ["a:b", "c,d", "e\\f"])
def test_a_store_may_lie_at_a_path_mount_options_must_escape(tmp_path: Path, odd: str) -> None:
    with Store.open(str(tmp_path / odd)) as store:
        base = make(store, None, "a")
        with store.snapshots.prepare(base.id) as draft:
            with draft.merged() as root:
                Path(root, "b").touch()
            top = draft.commit()
        with store.snapshots.mounted(top.id) as root:
            assert sorted(os.listdir(root)) == ["a", "b"]


def test_more_layers_than_a_page_of_mount_options_holds(store: Store) -> None:
    top = make(store, None, "0")
    for number in range(1, 127):  # Docker's limit is 127 layers
        top = make(store, top.id, str(number))
    try:
        with store.snapshots.mounted(top.id) as root:
            assert len(os.listdir(root)) == 127
    except Exception as error:  # the cause says which call failed
        release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        if release < (6, 8):
            pytest.skip(f"this kernel has no lowerdir+: {error}")
        raise


def test_steps_that_change_nothing_do_not_multiply_the_names_of_what_is_made_on_their_root(
    store: Store,
) -> None:
    base = make(store, None, "base")
    assert base.diff_id is not None
    diff_ids = [base.diff_id]
    for _ in range(20):
        diff_ids.append(EMPTY_LAYER.diff_id)
        store.snapshots.link(tuple(diff_ids), base.id)
    chain = chain_ids(diff_ids)[7]
    with store.snapshots.prepare(base.id) as draft:
        Path(draft.upper, "x").touch()
        top = draft.commit()
    diff_id = hash_layer(store.snapshots.path(top.id)).diff_id
    store.snapshots.identify(top.id, diff_id, below=chain)
    rows = store.db.read("SELECT chain_id, parent FROM chains WHERE snapshot = ?", (top.id,))
    assert [tuple(row) for row in rows] == [(chain_ids((chain, diff_id))[-1], chain)]
    assert store.snapshots.by_chain(chain_ids((chain, diff_id))[-1]) == store.snapshots.get(top.id)
