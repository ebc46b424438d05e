"""What nothing needs goes, and nothing else, at whatever moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from registry_client.oci.config import ImageConfig, dump_config
from registry_client.oci.digest import Digest
from registry_client.oci.platform import host_platform
from runtime.images import Images
from runtime.store import Store
from runtime.store.collect import collect
from runtime.store.layers import hash_layer
from runtime.store.locks import lock
from runtime.store.owners import own_token
from runtime.store.snapshots import Snapshot

pytestmark = pytest.mark.linux


def make(store: Store, parent: str | None, name: str) -> Snapshot:
    with store.snapshots.prepare(parent) as draft:
        Path(draft.upper, name).write_text(name * 5000)
        info = hash_layer(draft.upper)
        return draft.commit(diff_id=info.diff_id, size=info.size)


def layer(store: Store, parent: str | None, name: str) -> Snapshot:
    """Like `make`, but a chain that is known is used again, as the builder does."""
    made = make(store, parent, name)
    assert made.chain_id is not None
    return store.snapshots.by_chain(made.chain_id) or made


def make_image(store: Store, *names: str, tag: str = "") -> str:
    layers: list[tuple[Digest, str]] = []
    for name in names:
        made = layer(store, layers[-1][1] if layers else None, name)
        assert made.diff_id is not None
        layers.append((made.diff_id, made.id))
    config = dump_config(ImageConfig(host_platform(), diff_ids=tuple(each for each, _ in layers)))
    image = Images(store).add_built(config, layers)
    if tag:
        Images(store).tag(image.id, tag)
    return image.id


def snapshots_of(store: Store) -> set[str]:
    return set(os.listdir(store.snapshots.directory))


def consistent(store: Store) -> None:
    rows = {row["id"] for row in store.db.read("SELECT id FROM snapshots")}
    assert rows == snapshots_of(store)
    assert store.db.read("PRAGMA foreign_key_check") == []


def test_an_image_keeps_all_layers_below_it(store: Store) -> None:
    make_image(store, "a", "b", "c", tag="kept")
    make(store, None, "unwanted")
    store.leases.release()
    found = store.collect()
    assert (found.snapshots, len(snapshots_of(store))) == (1, 3)
    assert found.freed > 5000
    assert store.collect().snapshots == 0
    consistent(store)


def test_a_removed_image_leaves_only_what_others_share(store: Store) -> None:
    make_image(store, "a", "b", tag="one")
    make_image(store, "a", "c", tag="two")
    images = Images(store)
    images.remove("one")
    store.leases.release()
    store.collect()
    top = images.snapshot(images.get("two"))
    assert top is not None
    assert set(store.snapshots.ancestry(top)) == snapshots_of(store)
    images.remove("two")
    store.leases.release()
    store.collect()
    assert snapshots_of(store) == set()
    consistent(store)


def test_what_this_process_made_or_found_stays_until_it_lets_go(store: Store) -> None:
    made = make(store, None, "a")
    assert store.collect().snapshots == 0
    store.leases.release()
    with Store.open(store.root) as other:
        other.snapshots.get(made.id)
        assert store.collect().snapshots == 0
    assert store.collect().snapshots == 1


def test_a_root_view_of_another_room_keeps_things(store: Store) -> None:
    made = make(store, None, "a")
    blob = store.content.put(b"a blob")
    store.leases.release()
    with store.db.transaction() as connection:
        connection.execute("CREATE TABLE mine (kind, thing)")
        connection.execute("CREATE VIEW roots_test AS SELECT kind, thing FROM mine")
        connection.executemany("INSERT INTO mine VALUES (?, ?)", [("snapshot", made.id), ("blob", blob)])
    found = store.collect()
    assert (found.snapshots, found.blobs) == (0, 0)
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM mine")
    found = store.collect()
    assert (found.snapshots, found.blobs) == (1, 1)


def test_half_made_things_go_when_their_owner_is_dead(store: Store) -> None:
    alive, dead = own_token(), "0123456789ab.1.99.77"
    for where in (store.snapshots.drafts, store.snapshots.mounts):
        os.mkdir(os.path.join(where, f"aa.{alive}"))
        os.mkdir(os.path.join(where, f"bb.{dead}"))
    for owner in (alive, dead):
        Path(store.content.ingest, f"cc.{owner}").write_text("half")
    os.makedirs(os.path.join(store.snapshots.directory, "0011223344556677", "fs"))  # its row never came
    assert store.collect().drafts == 1
    for where in (store.snapshots.drafts, store.snapshots.mounts, store.content.ingest):
        assert [name.partition(".")[2] for name in os.listdir(where)] == [alive]
    assert snapshots_of(store) == set()


def test_a_partial_download_is_worth_keeping_for_a_day(store: Store) -> None:
    with store.content.writer(resume_key="k") as writer:
        writer.write(b"half")
    store.collect()
    assert len(os.listdir(store.content.ingest)) == 1
    with store.content.writer(resume_key="k") as writer:
        collect(store, partial_seconds=-1)  # somebody is writing it
        assert len(os.listdir(store.content.ingest)) == 1
        writer.write(b"more")
    collect(store, partial_seconds=-1)
    assert os.listdir(store.content.ingest) == []


def test_locks_nobody_holds_any_more_go_after_a_while(store: Store) -> None:
    with lock(store.root, "held"):
        with lock(store.root, "let go"):
            pass
        for name in os.listdir(os.path.join(store.root, "locks")):
            os.utime(os.path.join(store.root, "locks", name), (1, 1))
        store.collect()
        store.collect()
        # The held one, and the collector's own for index.json, which is new.
        assert len(os.listdir(os.path.join(store.root, "locks"))) == 2


def test_mounts_a_killed_process_left_are_detached(store: Store) -> None:
    code = """
import os, signal, sys
from runtime.store import Store
store = Store.open(sys.argv[1])
first = store.snapshots.prepare().commit()
with store.snapshots.prepare(first.id) as draft, draft.merged() as root:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, store.root]).returncode == -9
    (left,) = os.listdir(store.snapshots.mounts)
    assert os.path.ismount(os.path.join(store.snapshots.mounts, left))
    store.collect()
    assert os.listdir(store.snapshots.mounts) == []
    assert os.listdir(store.snapshots.drafts) == []
    assert store.root not in Path("/proc/self/mountinfo").read_text()


BUILD = """
import sys
from pathlib import Path
from tests.linux.store.test_collect import make_image
from runtime.images import Images
from runtime.store import Store
who = sys.argv[2]
for turn in range(8):
    with Store.open(sys.argv[1]) as store:
        make_image(store, "base", f"{who}-{turn}", tag=f"built:{who}-{turn}")
        images = Images(store)
        assert images.snapshot(images.get(f"built:{who}-{turn}")) is not None
        if turn % 2:
            images.remove(f"built:{who}-{turn}")
"""


def test_collecting_beside_builders_takes_nothing_from_them(store: Store) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, store.root, str(n)], stderr=subprocess.PIPE, cwd=os.getcwd()
        )
        for n in range(3)
    ]
    stop = threading.Event()

    def keep_collecting() -> None:
        while not stop.wait(0.005):
            store.collect()

    collectors = [threading.Thread(target=keep_collecting) for _ in range(2)]
    for thread in collectors:
        thread.start()
    errors = [process.communicate()[1].decode() for process in running]
    stop.set()
    for thread in collectors:
        thread.join()
    assert [(process.returncode, error) for process, error in zip(running, errors)] == [(0, "")] * 3
    store.leases.release()
    store.collect()
    images = Images(store)
    assert len(images.list()) == 12
    for image in images.list():
        top = images.snapshot(image)
        assert top is not None
        with store.snapshots.mounted(top) as root:
            assert len(os.listdir(root)) == 2
    consistent(store)


def test_the_age_of_a_lease_does_not_matter_while_its_owner_lives(store: Store) -> None:
    made = make(store, None, "a")
    with store.db.transaction() as connection:
        connection.execute("UPDATE leases SET created = ?", (time.time() - 10**6,))
    assert store.collect().snapshots == 0
    assert store.snapshots.find(made.id) is not None
