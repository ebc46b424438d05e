"""Finding, naming and removing images; archives in and out."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from registry_client.oci.config import ContainerConfig, ImageConfig, dump_config
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import parse_manifest
from registry_client.oci.platform import Platform, host_platform
from runtime.cancel import Cancel
from runtime.errors import Cancelled, Conflict, InvalidInput, NotFound, Unavailable
from runtime.events import Changed, Event
from runtime.images import Deleted, Image, Images, Untagged
from runtime.store import Store
from runtime.store.layers import EMPTY_LAYER, hash_layer
from tests.support.store import Entry, MadeImage, directory, docker_archive, make_image, make_tar

LAYER_1 = make_tar(directory("etc"), Entry("etc/name", b"one"), Entry("etc/gone", b"x"))
LAYER_2 = make_tar(Entry("etc/.wh.gone"), Entry("etc/more", b"two" * 10_000))


def load(images: Images, image: MadeImage, *names: str) -> Image:
    (loaded,) = images.load(io.BytesIO(docker_archive(image, *names)))
    return loaded


def build(images: Images, *files: str, config: ContainerConfig | None = None) -> Image:
    """An image as the builder makes it: one snapshot per file."""
    return build_of(images, *({name: name * 1000} for name in files), config=config)


def build_of(images: Images, *texts: dict[str, str], config: ContainerConfig | None = None) -> Image:
    """An image of one snapshot for each set of files and what is in them."""
    layers = []
    parent = None
    for files in texts:
        with images.store.snapshots.prepare(parent) as draft:
            for name, text in files.items():
                Path(draft.upper, name).write_text(text)
                os.utime(Path(draft.upper, name), (1_000_000, 1_000_000))
            info = hash_layer(draft.upper)
            parent = draft.commit(diff_id=info.diff_id, size=info.size).id
        layers.append((info.diff_id, parent))
    image = ImageConfig(host_platform(), config or ContainerConfig(), tuple(each for each, _ in layers))
    return images.add_built(dump_config(image), layers)


# --- names ------------------------------------------------------------------------------------------------------------


def test_an_image_is_found_by_every_name_it_has(images: Images) -> None:
    image = load(images, make_image(LAYER_1), "busybox:1", "localhost:5000/a/b:x")
    assert image.tags == ("docker.io/library/busybox:1", "localhost:5000/a/b:x")
    for name in (
        "busybox:1",
        "docker.io/library/busybox:1",
        "localhost:5000/a/b:x",
        image.id,
        image.id[7:],
        image.short_id,
    ):
        found = images.find(name)
        assert found is not None and found.id == image.id, name
    assert images.find("busybox") is None
    assert images.find("nothing:1") is None


def test_a_prefix_of_an_id_must_be_of_one_image_only(images: Images) -> None:
    ids = set()
    for number in range(17):  # more than there are first digits
        ids.add(load(images, make_image(make_tar(Entry("f", b"%d" % number)))).id)
    first_digits = [each[7] for each in ids]
    shared = next(digit for digit in first_digits if first_digits.count(digit) > 1)
    with pytest.raises(InvalidInput, match="ambiguous"):
        images.find(shared)
    for each in ids:
        found = images.find(each[7:27])
        assert found is not None and found.id == each


def test_a_tag_moves_to_the_image_that_got_it_last(images: Images, events: list[Event]) -> None:
    first, second = load(images, make_image(LAYER_1), "a:1"), load(images, make_image(LAYER_2))
    images.tag(second.id, "a:1")
    assert images.get("a:1").id == second.id
    assert images.get(first.id).tags == ()
    assert [e.action for e in events if isinstance(e, Changed)] == ["load", "load", "tag"]


def test_the_tag_latest_is_meant_where_none_is_given(images: Images) -> None:
    image = load(images, make_image(LAYER_1))
    assert images.tag(image.id, "plain").familiar == "plain:latest"
    assert images.get("plain").id == images.get("plain:latest").id == image.id


@pytest.mark.parametrize("name", ["UPPER", "a:b:c", "a@sha256:12", "-x"])
def test_a_name_that_cannot_be_is_refused(images: Images, name: str) -> None:
    image = load(images, make_image(LAYER_1))
    with pytest.raises(InvalidInput):
        images.tag(image.id, name)


def test_an_image_that_was_removed_meanwhile_gets_no_name(images: Images) -> None:
    image = load(images, make_image(LAYER_1), "a:1")
    images.remove("a:1")
    with pytest.raises(NotFound, match="was removed meanwhile"):
        images.records.set_tag("docker.io/library/b:1", image.id)


def test_removing_takes_the_name_and_with_the_last_one_the_image(images: Images) -> None:
    image = load(images, make_image(LAYER_1), "a:1", "b:2")
    with pytest.raises(Conflict, match="2 names"):
        images.remove(image.id)
    assert images.remove("a:1") == (Untagged("a:1"),)
    assert images.remove("b:2") == (Untagged("b:2"), Deleted(image.id))
    with pytest.raises(NotFound, match="no image b:2"):
        images.remove("b:2")
    again = load(images, make_image(LAYER_1), "a:1", "b:2")
    assert images.remove(again.id, force=True) == (Untagged("a:1"), Untagged("b:2"), Deleted(again.id))


def test_an_image_a_container_uses_is_kept(images: Images, store: Store) -> None:
    image = load(images, make_image(LAYER_1), "a:1")
    with store.db.transaction() as connection:
        connection.execute(f"CREATE VIEW roots_test AS SELECT 'image' AS kind, '{image.id}' AS thing")
    with pytest.raises(Conflict, match="used by the test"):
        images.remove("a:1")
    assert images.remove("a:1", force=True) == (Untagged("a:1"),)
    assert images.get(image.id).tags == ()
    assert images.prune() == ()


def test_pruning_takes_images_without_a_name_or_all(images: Images) -> None:
    from runtime.images.prune import Wanted

    named, nameless = load(images, make_image(LAYER_1), "a:1"), load(images, make_image(LAYER_2))
    assert images.prune(Wanted(labels=("x",))) == ()
    assert images.prune() == (Deleted(nameless.id),)
    assert images.prune(Wanted(everything=True)) == (Untagged("a:1"), Deleted(named.id))


# --- resolving --------------------------------------------------------------------------------------------------------


def test_what_is_here_is_not_pulled(images: Images) -> None:
    image = load(images, make_image(LAYER_1), "a:1")
    assert images.resolve("a:1").id == image.id
    assert images.resolve("a:1", platform=str(host_platform()), pull="never").id == image.id
    with pytest.raises(NotFound, match="no image other:1"):
        images.resolve("other:1", pull="never")
    with pytest.raises(NotFound, match=r"in the store is for .*, not for linux/riscv64"):
        images.resolve("a:1", platform="linux/riscv64", pull="never")


def test_without_a_way_to_a_registry_it_is_said_so(store: Store) -> None:
    with pytest.raises(Unavailable, match=r"registry.example\.com"):
        Images(store).resolve("registry.example.com/a:1")


def test_an_id_is_never_asked_of_a_registry(images: Images) -> None:
    with pytest.raises(NotFound):
        images.resolve("0" * 64)


def test_a_platform_nobody_knows_is_refused(images: Images) -> None:
    with pytest.raises(InvalidInput, match="invalid platform"):
        images.resolve("a", platform="a/b/c/d")


# --- unpacking --------------------------------------------------------------------------------------------------------


def test_layers_are_unpacked_once_and_shared(images: Images, store: Store) -> None:
    one, two = load(images, make_image(LAYER_1)), load(images, make_image(LAYER_1, LAYER_2))
    below, top = images.snapshot(one), images.snapshot(two)
    assert below is not None and top is not None
    assert store.snapshots.ancestry(top) == (top, below)
    assert images.snapshot(two) == top
    assert images.get(two.id).size == len(LAYER_1) + len(LAYER_2)
    assert images.get(one.id).size == len(LAYER_1)


def test_an_image_without_layers_has_no_snapshot(images: Images) -> None:
    assert images.snapshot(load(images, make_image())) is None


def test_a_layer_that_is_not_what_its_config_says_is_refused(images: Images, store: Store) -> None:
    made = make_image(LAYER_1)
    wrong = MadeImage(made.config, (LAYER_2,), (LAYER_2,), made.manifest)
    image = load(images, wrong, "a:1")
    with pytest.raises(InvalidInput, match="unpacks to"):
        images.snapshot(image)
    assert os.listdir(store.snapshots.directory) == []
    assert os.listdir(store.snapshots.drafts) == []


# --- built images -----------------------------------------------------------------------------------------------------


def test_a_built_image_has_no_blobs_until_its_manifest_is_asked_for(images: Images, store: Store) -> None:
    image = build(images, "a", "b")
    assert os.listdir(os.path.join(store.content.directory, "sha256")) == []
    manifest = images.manifest(image)
    assert len(manifest.layers) == 2
    assert all(store.content.has(each.digest) for each in (*manifest.layers, manifest.config))
    assert manifest.config.digest == image.id
    assert images.manifest(images.get(image.id)) == manifest
    assert images.get(image.id).manifest_digest == manifest.digest


def test_the_manifest_is_the_same_when_its_blobs_were_lost(images: Images, store: Store) -> None:
    image = build(images, "a", "b")
    first = images.manifest(image)
    for digest in (*(each.digest for each in first.layers), first.digest, first.config.digest):
        store.content.remove(digest)
    assert images.manifest(images.get(image.id)).raw == first.raw
    assert store.content.has(first.digest)


def test_another_store_makes_the_same_manifest(images: Images, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "other")) as other:
        assert (
            images.manifest(build(images, "a")).raw == Images(other).manifest(build(Images(other), "a")).raw
        )


@pytest.mark.parametrize("compression", ["zstd", ""])
def test_other_compressions_give_other_manifests_of_the_same_image(images: Images, compression: str) -> None:
    from runtime.store.layers import decompress

    image = build(images, "a")
    usual, other = images.manifest(image), images.manifest(images.get(image.id), compression)
    assert usual.layers[0].digest != other.layers[0].digest
    assert other.layers[0].media_type.endswith(f"+{compression}" if compression else ".tar")
    with images.store.content.open(other.layers[0].digest) as file:
        assert digest_of(decompress(file).read()) == image.diff_ids[0]


def test_a_layer_that_is_kept_uncompressed_too_gives_the_same_compressed_blob(
    images: Images, tmp_path: Path
) -> None:
    source = random.Random(7)
    texts = {f"f{number}": f"{source.getrandbits(4_000_000):x}" for number in range(4)}
    image = build_of(images, texts)
    images.manifest(image, "")
    from_blob = images.manifest(images.get(image.id), "gzip")
    with Store.open(str(tmp_path / "other")) as other:
        from_files = Images(other).manifest(build_of(Images(other), texts), "gzip")
    assert from_blob.layers == from_files.layers


def test_compressing_ends_when_it_is_cancelled_and_leaves_nothing(images: Images, store: Store) -> None:
    image = build(images, "a", "b")
    images.tag(image.id, "a:1")
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Cancelled):
        images.manifest(image, cancel=cancel)
    with pytest.raises(Cancelled):
        images.save(["a:1"], io.BytesIO(), cancel=cancel)
    assert os.listdir(store.content.ingest) == []
    assert store.content.digests() == [image.id]  # the config
    assert len(images.manifest(image, cancel=Cancel()).layers) == 2


def test_an_empty_step_is_the_empty_layer(images: Images, store: Store) -> None:
    first = build(images, "a")
    snapshot = images.snapshot(first)
    assert snapshot is not None
    config = ImageConfig(host_platform(), diff_ids=(*first.diff_ids, EMPTY_LAYER.diff_id))
    image = images.add_built(
        dump_config(config), [(first.diff_ids[0], snapshot), (EMPTY_LAYER.diff_id, snapshot)]
    )
    assert images.snapshot(image) == snapshot
    assert len(images.manifest(image).layers) == 2


def test_files_that_were_changed_in_the_store_do_not_leave_it(images: Images, store: Store) -> None:
    from runtime.errors import HostFault

    image = build(images, "a")
    snapshot = images.snapshot(image)
    assert snapshot is not None
    Path(store.snapshots.path(snapshot), "a").write_text("changed")
    with pytest.raises(HostFault, match="changed in the store"):
        images.manifest(image)


def test_a_config_that_lists_other_layers_is_refused(images: Images) -> None:
    image = build(images, "a")
    with pytest.raises(InvalidInput, match="does not list the layers"):
        images.add_built(dump_config(ImageConfig(host_platform())), [(image.diff_ids[0], "x")])


# --- archives ---------------------------------------------------------------------------------------------------------


def saved(images: Images, *names: str, docker: bool = True) -> bytes:
    out = io.BytesIO()
    images.save(names, out, docker=docker)
    return out.getvalue()


@pytest.mark.parametrize("docker", [True, False], ids=["docker", "oci"])
def test_an_archive_brings_images_with_their_names_to_another_store(
    images: Images, tmp_path: Path, docker: bool
) -> None:
    one, two = build(images, "a", "b"), load(images, make_image(LAYER_1, LAYER_2), "two:1")
    images.tag(one.id, "one:1")
    images.tag(one.id, "localhost:5000/one:also")
    data = saved(images, "one:1", "localhost:5000/one:also", two.short_id, docker=docker)
    assert data == saved(images, "one:1", "localhost:5000/one:also", two.short_id, docker=docker)
    with Store.open(str(tmp_path / "other")) as other:
        there = Images(other)
        assert [image.id for image in there.load(io.BytesIO(data))] == [one.id, two.id]
        assert there.get("one:1").tags == ("docker.io/library/one:1", "localhost:5000/one:also")
        assert there.get(two.id).tags == ()
        assert there.get("one:1").manifest_digest == images.manifest(one).digest
        top = there.snapshot(there.get(two.id))
        assert top is not None
        assert len(there.store.snapshots.ancestry(top)) == 2


def test_a_docker_archive_has_both_layouts(images: Images) -> None:
    images.tag(build(images, "a").id, "one:1")
    with tarfile.open(fileobj=io.BytesIO(saved(images, "one:1"))) as archive:
        names = archive.getnames()
        assert {"oci-layout", "index.json", "manifest.json", "repositories"} <= set(names)
        assert {(m.uid, m.gid, m.mtime, m.uname) for m in archive} == {(0, 0, 0, "")}
        manifest_file = archive.extractfile("manifest.json")
        assert manifest_file is not None
        (record,) = json.load(manifest_file)
    assert record["RepoTags"] == ["one:1"]
    assert {record["Config"], *record["Layers"]} <= set(names)


def test_a_compressed_archive_is_read_too(images: Images) -> None:
    import gzip

    (image,) = images.load(io.BytesIO(gzip.compress(docker_archive(make_image(LAYER_1), "a:1"))))
    assert image.tags == ("docker.io/library/a:1",)


def test_an_archive_for_several_platforms_gives_the_one_asked_for(images: Images) -> None:
    other = Platform("linux", "s390x" if host_platform().architecture != "s390x" else "amd64")
    mine, theirs = make_image(LAYER_1), make_image(LAYER_2, platform=other)
    from registry_client.oci.descriptor import Descriptor
    from registry_client.oci.manifest import make_index

    entries = tuple(
        Descriptor(m.manifest.media_type, m.manifest.digest, len(m.manifest.raw), platform=p)
        for m, p in ((mine, host_platform()), (theirs, other))
    )
    inner = make_index(entries)
    outer = make_index((Descriptor(inner.media_type, inner.digest, len(inner.raw)),))
    blobs = {digest_of(b): b for m in (mine, theirs) for b in (m.config, *m.blobs, m.manifest.raw)} | {
        inner.digest: inner.raw
    }
    data = make_tar(
        Entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        Entry("index.json", outer.raw),
        *(Entry("blobs/sha256/" + digest[7:], blob) for digest, blob in blobs.items()),
    )
    assert [image.id for image in images.load(io.BytesIO(data))] == [mine.id]
    assert [image.id for image in images.load(io.BytesIO(data), str(other))] == [theirs.id]
    with pytest.raises(NotFound, match="no image for linux/riscv64"):
        images.load(io.BytesIO(data), "linux/riscv64")


def archive_with(config: str = "c.json", layers: tuple[str, ...] = ("l/layer.tar",), *more: Entry) -> bytes:
    made = make_image(LAYER_1)
    record = [{"Config": config, "RepoTags": ["a:1"], "Layers": list(layers)}]
    return make_tar(
        Entry("c.json", made.config),
        Entry("l/layer.tar", LAYER_1),
        *more,
        Entry("manifest.json", json.dumps(record).encode()),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_tar(Entry("hello", b"world")), "not an image archive"),
        (make_tar(Entry("repositories", b"{}")), "before 1.10"),
        (b"no tar at all" * 100, "not a tar"),
        (archive_with(layers=("../../etc/passwd",)), "missing"),
        (archive_with(layers=("l/layer.tar", "l/layer.tar")), "2 layers for a config with 1"),
        (archive_with(config="nowhere.json"), "missing"),
        (make_tar(Entry("manifest.json", b"{")), "damaged"),
        (make_tar(Entry("manifest.json", b'{"a": 1}')), "damaged"),
        (make_tar(Entry("oci-layout", b"{}"), Entry("index.json", b"[]")), "damaged"),
        (make_tar(Entry("blobs/sha256/" + "0" * 64, b"x")), "does not match its digest"),
        (make_tar(Entry("blobs/sha256/../../x", b"x")), "not an image archive"),
        (make_tar(Entry("blobs/md5/abc", b"x")), "invalid blob name"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_broken_archive_is_refused_and_leaves_no_image(images: Images, data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        images.load(io.BytesIO(data))
    assert images.list() == ()


def test_a_link_in_place_of_a_layer_is_not_followed(images: Images, tmp_path: Path) -> None:
    from tests.support.store import symlink

    (tmp_path / "secret.tar").write_bytes(LAYER_1)
    data = archive_with("c.json", ("evil.tar",), symlink("evil.tar", str(tmp_path / "secret.tar")))
    with pytest.raises(InvalidInput, match="missing, or a link"):
        images.load(io.BytesIO(data))


def test_a_root_file_system_becomes_an_image_of_one_layer(images: Images, store: Store) -> None:
    image = images.import_root(
        io.BytesIO(LAYER_1),
        config=ContainerConfig(cmd=("sh",)),
        comment="from a tar",
        created="2020-01-01T00:00:00Z",
    )
    assert image.config.config.cmd == ("sh",)
    assert [step.comment for step in images.history(image)] == ["from a tar"]
    top = images.snapshot(image)
    assert top is not None
    assert sorted(os.listdir(os.path.join(store.snapshots.path(top), "etc"))) == ["gone", "name"]
    assert len(images.manifest(image).layers) == 1


# --- index.json -------------------------------------------------------------------------------------------------------


def index_names(store: Store) -> dict[str, str]:
    index = parse_manifest(Path(store.root, "index.json").read_bytes())
    return {e.annotations["org.opencontainers.image.ref.name"]: e.digest for e in index.manifests}  # type: ignore[union-attr]


def test_the_index_names_what_has_a_manifest_and_a_tag(images: Images, store: Store) -> None:
    image = build(images, "a")
    images.tag(image.id, "a:1")
    assert index_names(store) == {}
    digest = images.manifest(image).digest
    assert index_names(store) == {"a:1": digest, "docker.io/library/a:1": digest}
    images.tag(image.id, "localhost/b:2")
    assert index_names(store)["localhost/b:2"] == digest
    images.untag("a:1")
    assert set(index_names(store)) == {"localhost/b:2"}
    images.remove("localhost/b:2")
    assert index_names(store) == {}


TAG = """
import sys
from runtime.images import Images
from runtime.store import Store
with Store.open(sys.argv[1]) as store:
    for turn in range(5):
        Images(store).tag(sys.argv[2], f"tagged:{sys.argv[3]}-{turn}")
"""


def test_processes_that_tag_at_once_are_all_in_the_index(images: Images, store: Store) -> None:
    image = build(images, "a")
    images.manifest(image)
    running = [
        subprocess.Popen([sys.executable, "-c", TAG, store.root, image.id, str(n)], stderr=subprocess.PIPE)
        for n in range(5)
    ]
    errors = [process.communicate()[1].decode() for process in running]
    assert errors == [""] * 5
    assert len(images.get(image.id).tags) == 25
    assert set(index_names(store)) == {
        form + f"tagged:{n}-{turn}"
        for n in range(5)
        for turn in range(5)
        for form in ("", "docker.io/library/")
    }
