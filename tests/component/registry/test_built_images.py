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
from registry_client.oci.manifest import Index, Manifest, parse_manifest
from registry_client.oci.platform import Platform, host_platform
from runtime.images.image import Image
from runtime.images.images import Images
from runtime.images.transport import RegistryTransport
from runtime.store import Store
from runtime.store.layers import hash_layer
from tests.support.embedded_registry import Served, embedded_registry

OTHER = Platform("linux", "s390x")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path) as running:
        yield running


def build(served: Served, content: bytes, name: str, platform: Platform | None = None) -> Image:
    """What the builder leaves behind: a snapshot and a config, no blobs."""
    with served.store.snapshots.prepare(None) as draft:
        file = Path(draft.upper) / "file"
        file.write_bytes(content)
        for path in (file, file.parent):
            os.utime(path, (1_000_000_000, 1_000_000_000))  # the same content is the same layer
        diff_id = hash_layer(draft.upper).diff_id
        snapshot = draft.commit(diff_id=diff_id)
    config = ImageConfig(platform=platform or host_platform(), diff_ids=(diff_id,))
    image = served.images.add_built(dump_config(config), [(diff_id, snapshot.id)])
    served.images.tag(image.id, name)
    return image


def build_several(served: Served, other: bytes = b"other\n") -> tuple[Image, Image]:
    """One for this host and one that is not, under one name."""
    theirs = build(served, other, "shop/app:1", OTHER)
    mine = build(served, b"built\n", "shop/app:1")
    served.images.tag_platforms([mine, theirs], "shop/app:1")
    return mine, theirs


def index_of(served: Served, repository: str = "shop/app", tag: str = "1") -> Index:
    raw, kind, _ = served.client.manifest(repository, tag)
    found = parse_manifest(raw, kind)
    assert isinstance(found, Index)
    return found


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


def test_a_name_for_several_platforms_is_served_whole(served: Served) -> None:
    mine, theirs = build_several(served)
    index = index_of(served)
    assert [entry.platform for entry in index.manifests] == [host_platform(), OTHER]
    for entry, image in zip(index.manifests, (mine, theirs), strict=True):
        assert pulled(served, "shop/app", entry.digest).config.digest == image.id
    assert index_of(served).digest == index.digest
    assert served.client.manifest("shop/app", index.digest)[2] == index.digest


def test_an_image_of_another_platform_that_was_built_again_moves_the_name(served: Served) -> None:
    build_several(served)
    first = index_of(served)
    _, theirs = build_several(served, b"changed\n")
    then = index_of(served)
    assert then.digest != first.digest
    assert pulled(served, "shop/app", then.manifests[1].digest).config.digest == theirs.id


def test_a_pushed_index_stands_for_all_its_platforms_until_one_is_built_again(served: Served) -> None:
    mine, theirs = build_several(served)
    first = index_of(served)
    for manifest in (served.images.manifest(mine), served.images.manifest(theirs)):
        served.client.put_manifest("shop/app", manifest.digest, manifest.raw, manifest.media_type)
        served.client.put_manifest("shop/copy", manifest.digest, manifest.raw, manifest.media_type)
    for repository in ("shop/copy", "shop/app"):
        served.client.put_manifest(repository, "1", first.raw, first.media_type)
    name = "docker.io/shop/copy:1"
    assert served.images.records.variants(name) == [mine.id, theirs.id]
    assert index_of(served, "shop/copy").digest == first.digest
    _, theirs = build_several(served, b"changed\n")
    then = index_of(served)
    assert pulled(served, "shop/app", then.manifests[1].digest).config.digest == theirs.id
    assert index_of(served, "shop/copy").digest == first.digest


def test_deleting_one_platforms_manifest_leaves_the_name(served: Served) -> None:
    build_several(served)
    index = index_of(served)
    served.client.delete("shop/app", index.manifests[0].digest)
    assert index_of(served).digest == index.digest
    served.client.delete("shop/app", index.digest)
    assert served.client.catalog() == ()
