"""Images that were only built here are served too: their manifest and blobs are made when somebody asks."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_client.oci.config import ImageConfig, dump_config
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Manifest, parse_manifest
from runtime.images.image import Image
from runtime.images.images import Images
from runtime.images.transport import RegistryTransport
from runtime.store import Store
from runtime.store.layers import hash_layer
from tests.support.embedded_registry import Served, embedded_registry


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path) as running:
        yield running


def build(served: Served, content: bytes, name: str) -> Image:
    """What the builder leaves behind: a snapshot and a config, no blobs."""
    with served.store.snapshots.prepare(None) as draft:
        file = Path(draft.upper) / "file"
        file.write_bytes(content)
        for path in (file, file.parent):
            os.utime(path, (1_000_000_000, 1_000_000_000))  # the same content is the same layer
        diff_id = hash_layer(draft.upper).diff_id
        snapshot = draft.commit(diff_id=diff_id)
    image = served.images.add_built(dump_config(ImageConfig(diff_ids=(diff_id,))), [(diff_id, snapshot.id)])
    served.images.tag(image.id, name)
    return image


def pulled(served: Served, repository: str, tag: str) -> Manifest:
    """Pull all of an image as any client would, verified; its manifest."""
    raw, kind, _ = served.client.manifest(repository, tag)
    manifest = parse_manifest(raw, kind)
    assert isinstance(manifest, Manifest)
    for part in (manifest.config, *manifest.layers):
        with served.client.blob(repository, part.digest, size=part.size) as chunks:
            assert b"".join(chunks)
    return manifest


def test_a_built_image_is_listed_and_can_be_pulled(served: Served) -> None:
    image = build(served, b"built\n", "shop/app:1")
    blobs = Path(served.store.root) / "blobs" / "sha256"
    assert list(blobs.iterdir()) == []
    assert served.client.catalog() == ("shop/app",)
    assert served.client.tags("shop/app") == ("1",)
    assert list(blobs.iterdir()) == []
    manifest = pulled(served, "shop/app", "1")
    assert manifest.config.digest == image.id
    with served.client.blob("shop/app", manifest.layers[0].digest) as chunks:
        layer = gzip.decompress(b"".join(chunks))
    assert Digest("sha256:" + hashlib.sha256(layer).hexdigest()) == image.diff_ids[0]


def test_its_manifest_is_the_same_every_time_and_known_by_digest(served: Served) -> None:
    build(served, b"built\n", "shop/app:1")
    first = served.client.head_manifest("shop/app", "1")
    assert served.client.head_manifest("shop/app", "1") == first
    assert served.client.manifest("shop/app", first.digest)[2] == first.digest


def test_a_rebuild_under_the_same_name_is_served_at_once(served: Served) -> None:
    build(served, b"one\n", "shop/app:1")
    before = pulled(served, "shop/app", "1")
    image = build(served, b"two\n", "shop/app:1")
    after = pulled(served, "shop/app", "1")
    assert before.digest != after.digest
    assert after.config.digest == image.id


def test_a_push_of_a_built_image_to_its_own_registry_sends_nothing(served: Served) -> None:
    image = build(served, b"built\n", "shop/app:1")
    manifest = served.images.manifest(image)
    ingested: list[str] = []
    for part in (manifest.config, *manifest.layers):
        assert served.client.has_blob("shop/copy", part.digest)
        ingested.append(part.digest)
    served.client.put_manifest("shop/copy", "2", manifest.raw, manifest.media_type)
    assert served.images.get("shop/copy:2").id == image.id
    assert len(ingested) == 2


def test_deleting_by_digest_takes_the_names_of_a_built_image_away(served: Served) -> None:
    image = build(served, b"built\n", "shop/app:1")
    served.images.tag(image.id, "shop/app:2")
    served.images.tag(image.id, "other/name:3")
    served.client.delete("shop/app", served.client.head_manifest("shop/app", "1").digest)
    assert served.client.catalog() == ("other/name",)
    assert served.images.find("shop/app:2") is None
    assert served.images.get("other/name:3").id == image.id


def test_the_layout_names_a_built_image_once_it_was_served(served: Served) -> None:
    build(served, b"built\n", "shop/app:1")
    manifest = pulled(served, "shop/app", "1")
    index = json.loads((Path(served.store.root) / "index.json").read_text())
    assert manifest.digest in {entry["digest"] for entry in index["manifests"]}


def test_a_layer_that_was_deleted_comes_back_with_an_image_that_has_it(served: Served) -> None:
    build(served, b"built\n", "shop/app:1")
    manifest = pulled(served, "shop/app", "1")
    served.client.delete("shop/app", manifest.digest)
    served.client.delete_blob("shop/app", manifest.layers[0].digest)
    assert not served.client.has_blob("shop/app", manifest.layers[0].digest)
    build(served, b"built\n", "shop/app:2")
    assert pulled(served, "shop/app", "2").layers == manifest.layers


def test_another_store_pulls_it_and_pushes_its_own(served: Served, tmp_path: Path) -> None:
    image = build(served, b"built\n", "shop/app:1")
    transport = RegistryTransport()
    with Store.open(str(tmp_path / "elsewhere")) as store:
        images = Images(store, transport)
        got = images.pull(f"{served.host}/shop/app:1")
        assert got.id == image.id
        snapshot = images.snapshot(got)
        assert snapshot is not None
        assert (Path(store.root) / "snapshots" / snapshot / "fs" / "file").read_bytes() == b"built\n"
        images.tag(got.id, f"{served.host}/back/again:2")
        assert images.push(f"{served.host}/back/again:2").digest == got.manifest_digest
    transport.close()
    assert served.images.get("back/again:2").id == image.id
