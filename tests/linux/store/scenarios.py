"""What is killed in `test_crashes.py`, and what must be true of a store afterwards."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

from registry_client.oci.config import ImageConfig, dump_config
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import Index, parse_manifest
from registry_client.oci.platform import host_platform
from runtime.images import Images
from runtime.images.prune import Wanted
from runtime.store import Store
from runtime.store.layers import hash_layer
from tests.support.store import (
    Entry,
    FakeRegistry,
    directory,
    docker_archive,
    hardlink,
    make_image,
    make_tar,
)

NAME = "registry.example.com/shop/app:1"
LAYERS = (
    make_tar(directory("d"), Entry("d/a", b"a" * 3000), Entry("d/b", b"b"), hardlink("c", "d/a")),
    make_tar(Entry("d/.wh.b"), Entry("e", random.Random(1).randbytes(100_000))),
)


def consistent(root: str) -> None:
    """Everything that is true of a store after a collection, whatever happened before."""
    with Store.open(root) as store:
        store.collect()
        assert store.db.read("PRAGMA integrity_check")[0][0] == "ok"
        assert store.db.read("PRAGMA foreign_key_check") == []
        rows = {row["id"] for row in store.db.read("SELECT id FROM snapshots")}
        assert rows == set(os.listdir(store.snapshots.directory))
        assert os.listdir(store.snapshots.drafts) == os.listdir(store.snapshots.mounts) == []
        assert not [name for name in os.listdir(store.content.ingest) if "." in name]
        for digest in store.content.digests():
            assert digest_of(Path(store.content.path(digest)).read_bytes()) == digest
        index = parse_manifest(Path(root, "index.json").read_bytes())
        assert isinstance(index, Index)
        for entry in index.manifests:
            assert store.content.size(entry.digest) == entry.size
        images = Images(store)
        for image in images.list():
            images.snapshot(image)
            images.manifest(image)
    assert root not in Path("/proc/self/mountinfo").read_text()


def emptied(root: str) -> None:
    with Store.open(root) as store:
        Images(store).prune(Wanted(everything=True))
        with store.db.transaction() as connection:
            connection.execute("DELETE FROM cache_records")
        store.collect()
        for name in os.listdir(store.content.ingest):
            os.unlink(os.path.join(store.content.ingest, name))
        assert os.listdir(store.snapshots.directory) == []
        assert store.content.digests() == []


class Build:
    """Two steps, the second one in a mounted root; an image with a name; its manifest."""

    check = staticmethod(consistent)
    reset = staticmethod(emptied)

    def run(self, root: str) -> str:
        with Store.open(root) as store:
            with store.snapshots.prepare() as draft:
                for name in ("a", "b"):
                    Path(draft.upper, name).write_text(name * 4000)
                    os.utime(Path(draft.upper, name), (1, 1))
                info = hash_layer(draft.upper)
                base = draft.commit(diff_id=info.diff_id, size=info.size)
            with store.snapshots.prepare(base.id) as draft:
                with draft.merged() as merged:
                    os.unlink(f"{merged}/a")
                    Path(merged, "c").write_text("c")
                    os.utime(Path(merged, "c"), (1, 1))
                top = draft.commit()
            second = hash_layer(store.snapshots.path(top.id))
            store.snapshots.identify(top.id, second.diff_id, second.size)
            config = ImageConfig(host_platform(), diff_ids=(info.diff_id, second.diff_id))
            images = Images(store)
            image = images.add_built(dump_config(config), [(info.diff_id, base.id), (second.diff_id, top.id)])
            images.tag(image.id, "built:1")
            return images.manifest(image).digest


class Pull:
    check = staticmethod(consistent)
    reset = staticmethod(emptied)

    def __init__(self) -> None:
        self._registry = FakeRegistry(chunk=20_000)
        self._registry.add("shop/app", "1", make_image(*LAYERS))

    def run(self, root: str) -> str:
        with Store.open(root) as store:
            image = Images(store, self._registry).pull(NAME)
            assert image.manifest_digest is not None
            return image.manifest_digest


class Load:
    check = staticmethod(consistent)
    reset = staticmethod(emptied)

    def __init__(self) -> None:
        self._archive = docker_archive(make_image(*LAYERS), "loaded:1")

    def run(self, root: str) -> str:
        with Store.open(root) as store:
            images = Images(store)
            (image,) = images.load(io.BytesIO(self._archive))
            images.snapshot(image)
            return images.manifest(image).digest


class Collect(Load):
    """Load one image, drop it, load another, collect."""

    def run(self, root: str) -> str:
        result = super().run(root)
        with Store.open(root) as store:
            Images(store).remove("loaded:1")
            store.leases.release()
            store.collect()
            assert store.content.digests() == []
        return result
