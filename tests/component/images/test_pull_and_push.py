"""Images from and to a registry in memory: what is asked for, in what order, and what a broken transfer leaves."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from registry_client import errors as registry_errors
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.oci.platform import Platform, host_platform
from runtime.cancel import Cancel
from runtime.errors import Cancelled, Denied, InvalidInput, NotFound, Unavailable
from runtime.events import Event, Finished, Outcome, Progress, Started
from runtime.images import Images, blobs
from runtime.store import Store
from tests.component.images.test_images import LAYER_1, LAYER_2, build, index_names
from tests.support.store import Entry, FakeRegistry, MadeImage, make_image, make_tar

BIG = make_tar(Entry("big", random.Random(1).randbytes(1_000_000)))
NAME = "registry.example.com/shop/app:1"
OTHER = Platform("linux", "riscv64")


def blob_requests(registry: FakeRegistry) -> list[str]:
    return [each for each in registry.asked if each.startswith("blob")]


def test_a_pulled_image_is_unpacked_named_and_keeps_its_exact_blobs(
    images: Images, registry: FakeRegistry, store: Store
) -> None:
    made = make_image(LAYER_1, LAYER_2)
    digest = registry.add("shop/app", "1", made)
    image = images.pull(NAME)
    assert (image.id, image.tags, image.manifest_digest) == (made.id, (NAME,), digest)
    assert image.repo_digests == (f"registry.example.com/shop/app@{digest}",)
    assert store.content.read(digest) == made.manifest.raw
    assert [store.content.read(d.digest) for d in made.manifest.layers] == list(made.blobs)
    top = images.snapshot(image)
    assert top is not None
    with store.snapshots.mounted(top) as root:
        assert sorted(os.listdir(f"{root}/etc")) == ["more", "name"]
    assert index_names(store) == {NAME: digest}
    assert images.manifest(image).raw == made.manifest.raw
    assert images.resolve(f"registry.example.com/shop/app@{digest}").id == image.id


def test_dockers_media_types_are_pulled_and_kept(images: Images, registry: FakeRegistry) -> None:
    made = make_image(LAYER_1, docker=True)
    registry.add("shop/app", "1", made)
    image = images.pull(NAME)
    assert images.manifest(image).raw == made.manifest.raw
    assert images.snapshot(image) is not None


def test_of_an_index_the_wanted_platform_is_taken(images: Images, registry: FakeRegistry) -> None:
    mine, theirs = make_image(LAYER_1), make_image(LAYER_2, platform=OTHER)
    index = registry.add_index("shop/app", "1", [(OTHER, theirs), (host_platform(), mine)])
    pulled = images.pull(NAME)
    assert pulled.id == mine.id
    assert pulled.repo_digests == (f"registry.example.com/shop/app@{index}",)
    assert images.resolve(f"registry.example.com/shop/app@{index}").id == mine.id
    assert images.resolve(NAME, platform=str(OTHER)).id == theirs.id
    assert images.get(NAME).id == theirs.id
    with pytest.raises(NotFound, match="has no image for linux/s390x"):
        images.pull(NAME, "linux/s390x")


def test_pulling_again_asks_for_the_manifest_only(images: Images, registry: FakeRegistry) -> None:
    registry.add("shop/app", "1", make_image(LAYER_1, LAYER_2))
    images.pull(NAME)
    before = len(blob_requests(registry))
    images.resolve(NAME, pull="always")
    assert len(blob_requests(registry)) == before
    assert registry.asked.count("manifest 1") == 2
    images.resolve(NAME)
    assert registry.asked.count("manifest 1") == 2


def test_a_tag_that_moved_is_followed_when_asked_to(images: Images, registry: FakeRegistry) -> None:
    registry.add("shop/app", "1", make_image(LAYER_1))
    first = images.resolve(NAME)
    second = make_image(LAYER_1, LAYER_2)
    registry.add("shop/app", "1", second)
    assert images.resolve(NAME).id == first.id
    assert images.resolve(NAME, pull="always").id == second.id
    assert images.get(first.id).tags == ()


def test_three_layers_come_at_once(images: Images, registry: FakeRegistry) -> None:
    layers = [make_tar(Entry(str(n), os.urandom(200_000))) for n in range(6)]
    registry.add("shop/app", "1", make_image(*layers))
    together = threading.Barrier(3)

    def meet(digest: Digest, offset: int) -> None:
        if offset == 0 and len(registry.blobs[digest]) > 10_000:
            together.wait(60)  # breaks, and with it the pull, unless three come at once

    registry.on_chunk = meet
    images.pull(NAME)
    assert registry.most_at_once == 3


def test_a_broken_transfer_goes_on_where_it_stopped(images: Images, registry: FakeRegistry) -> None:
    made = make_image(BIG)
    registry.add("shop/app", "1", made)

    def break_off(digest: Digest, offset: int) -> None:
        if offset > 300_000:
            raise registry_errors.Unreachable("the connection broke off")

    registry.on_chunk = break_off
    with pytest.raises(Unavailable, match="broke off"):
        images.pull(NAME)
    assert images.list() == ()
    registry.on_chunk = lambda digest, offset: None
    assert images.pull(NAME).id == made.id
    assert max(registry.offsets) > 300_000


def test_a_partial_blob_that_is_wrong_is_fetched_anew(
    images: Images, registry: FakeRegistry, store: Store
) -> None:
    made = make_image(BIG)
    registry.add("shop/app", "1", made)
    digest = made.manifest.layers[0].digest
    with store.content.writer(digest, len(made.blobs[0]), resume_key=digest) as writer:
        writer.write(bytes(1000))  # as a power loss leaves it
    assert images.pull(NAME).id == made.id


@pytest.mark.parametrize(
    "change",
    [lambda blob: blob[:-1] + b"?", lambda blob: blob[:-9], lambda blob: blob + b"?"],
    ids=["changed", "short", "long"],
)
def test_wrong_bytes_from_a_registry_are_refused(
    images: Images, registry: FakeRegistry, store: Store, change
) -> None:  # type: ignore[no-untyped-def]
    made = make_image(LAYER_1)
    registry.add("shop/app", "1", made)
    digest = made.manifest.layers[0].digest
    registry.blobs[digest] = change(registry.blobs[digest])
    with pytest.raises(InvalidInput):
        images.pull(NAME)
    assert images.list() == ()
    assert not store.content.has(digest)
    assert index_names(store) == {}


def test_a_layer_that_unpacks_to_something_else_leaves_no_image(
    images: Images, registry: FakeRegistry
) -> None:
    one, two = make_image(LAYER_1), make_image(LAYER_2)
    from registry_client.oci.manifest import make_manifest

    lying = MadeImage(
        one.config, two.layers, two.blobs, make_manifest(one.manifest.config, two.manifest.layers)
    )
    registry.add("shop/app", "1", lying)
    with pytest.raises(InvalidInput, match="unpacks to"):
        images.pull(NAME)
    assert images.list() == ()


def test_an_artifact_is_no_image(images: Images, registry: FakeRegistry) -> None:
    from dataclasses import replace

    from registry_client.oci.manifest import make_manifest

    made = make_image(LAYER_1)
    config = replace(made.manifest.config, media_type="application/vnd.cncf.helm.config.v1+json")
    registry.add(
        "shop/app",
        "1",
        MadeImage(made.config, made.layers, made.blobs, make_manifest(config, made.manifest.layers)),
    )
    with pytest.raises(InvalidInput, match=r"is no image but application/vnd\.cncf\.helm"):
        images.pull(NAME)


def test_what_a_registry_does_not_have_is_not_found(images: Images, events: list[Event]) -> None:
    with pytest.raises(NotFound):
        images.pull(NAME)
    assert [type(each) for each in events] == [Started, Finished]
    assert isinstance(events[-1], Finished) and events[-1].outcome is Outcome.ERROR


def test_progress_is_told_per_blob_up_to_its_end(
    images: Images, registry: FakeRegistry, events: list[Event]
) -> None:
    made = make_image(LAYER_1, BIG)
    registry.add("shop/app", "1", made)
    images.pull(NAME)
    last = {each.item: (each.current, each.total) for each in events if isinstance(each, Progress)}
    sizes = {d.digest[7:19]: (d.size, d.size) for d in (*made.manifest.layers, made.manifest.config)}
    assert last == sizes
    assert {each.node for each in events if isinstance(each, Progress)} == {f"pull/{NAME}"}


def test_a_cancelled_pull_stops_between_chunks_and_can_go_on(images: Images, registry: FakeRegistry) -> None:
    registry.add("shop/app", "1", make_image(BIG))
    cancel = Cancel()

    def stop(digest: Digest, offset: int) -> None:
        if offset > 200_000:
            cancel.cancel("interrupted")

    registry.on_chunk = stop
    with pytest.raises(Cancelled):
        images.pull(NAME, cancel=cancel)
    assert images.list() == ()
    registry.on_chunk = lambda digest, offset: None
    images.pull(NAME)
    assert max(registry.offsets) > 200_000


def test_two_pulls_of_one_image_transfer_each_blob_once(
    tmp_path: Path, store: Store, registry: FakeRegistry
) -> None:
    made = make_image(BIG, LAYER_1)
    registry.add("shop/app", "1", made)
    results: list[str] = []

    def pull() -> None:
        with Store.open(store.root) as own:
            results.append(Images(own, registry).pull(NAME).id)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [made.id] * 4
    assert sorted(blob_requests(registry)) == sorted(
        f"blob {d.digest}" for d in (*made.manifest.layers, made.manifest.config)
    )
    with Store.open(store.root) as own:
        assert len(own.db.read("SELECT * FROM snapshots")) == 2


# --- push -------------------------------------------------------------------------------------------------------------


def test_a_built_image_is_pushed_blobs_first_and_known_by_its_digest(
    images: Images, registry: FakeRegistry
) -> None:
    image = build(images, "a", "b")
    images.tag(image.id, NAME)
    pushed = images.push(NAME)
    assert registry.manifests["shop/app", "1"][0] == images.manifest(image).raw
    assert pushed.digest == images.manifest(image).digest
    assert images.get(NAME).repo_digests == (f"registry.example.com/shop/app@{pushed.digest}",)


def test_a_pulled_image_goes_on_to_another_name_unchanged_by_mount(
    images: Images, registry: FakeRegistry
) -> None:
    made = make_image(LAYER_1)
    digest = registry.add("shop/app", "1", made)
    images.pull(NAME)
    assert images.push(NAME, "registry.example.com/shop/copy:2").digest == digest
    assert registry.manifests["shop/copy", "2"][0] == made.manifest.raw
    assert any(each.endswith("from shop/app") for each in registry.asked)


def test_a_layer_is_sent_while_another_is_still_compressed(
    images: Images, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build(images, "a", "b")
    images.tag(image.id, NAME)
    sent = threading.Event()
    make, push = blobs.make_blob, registry.push_blob

    def make_when_sent(images: Images, diff_id: Digest, *more: Any) -> Descriptor:
        assert diff_id == image.diff_ids[0] or sent.wait(60), "the first layer waits for the second"
        return make(images, diff_id, *more)

    def push_and_say(repository: str, blob: Descriptor, *more: Any, **named: Any) -> None:
        push(repository, blob, *more, **named)
        if blob.digest != image.id:
            sent.set()

    monkeypatch.setattr(blobs, "make_blob", make_when_sent)
    monkeypatch.setattr(registry, "push_blob", push_and_say)
    images.push(NAME)
    assert registry.manifests["shop/app", "1"][0] == images.manifest(image).raw


def test_a_blob_that_cannot_be_sent_ends_the_compressing_of_others(
    images: Images, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.tag(build(images, "a", "b").id, NAME)

    def make_for_ever(
        images: Images, diff_id: Digest, chain_id: Digest, kind: str, packer: Any, cancel: Cancel
    ) -> None:
        assert cancel.wait(60), "nobody says that the push failed"
        cancel.check()

    def refuse(*request: Any, **more: Any) -> None:
        raise registry_errors.Denied("push to shop/app is not allowed")

    monkeypatch.setattr(blobs, "make_blob", make_for_ever)
    monkeypatch.setattr(registry, "push_blob", refuse)
    with pytest.raises(Denied, match="not allowed"):
        images.push(NAME)


def test_what_a_registry_rejects_is_told_in_our_words(
    images: Images, registry: FakeRegistry, events: list[Event]
) -> None:
    images.tag(build(images, "a").id, NAME)

    def deny(*arguments: object, **more: object) -> None:
        raise registry_errors.Denied("cannot push", status=403, hint="ask for the right to")

    registry.push_blob = deny  # type: ignore[assignment]
    with pytest.raises(Denied, match="cannot push") as caught:
        images.push(NAME)
    assert caught.value.hint == "ask for the right to"
    assert isinstance(events[-1], Finished) and events[-1].outcome is Outcome.ERROR


def test_an_index_all_of_which_was_pulled_is_pushed_as_it_came(
    images: Images, registry: FakeRegistry
) -> None:
    mine, theirs = make_image(LAYER_1), make_image(LAYER_2, platform=OTHER)
    index = registry.add_index("shop/app", "1", [(OTHER, theirs), (host_platform(), mine)])
    images.pull(NAME)
    assert images.push(NAME, "registry.example.com/shop/one:1").digest == mine.manifest.digest
    images.pull(NAME, OTHER)
    images.pull(NAME)
    assert images.push(NAME, "registry.example.com/shop/all:1").digest == index
    assert registry.manifests["shop/all", "1"] == registry.manifests["shop/app", "1"]
    assert (
        images.push(NAME, "registry.example.com/shop/two:1", platform=OTHER).digest == theirs.manifest.digest
    )
    assert images.push(mine.id, "registry.example.com/shop/id:1").digest == mine.manifest.digest


def test_a_layer_of_a_base_is_mounted_from_where_the_base_came_from(
    images: Images, registry: FakeRegistry
) -> None:
    from registry_client.oci.config import ImageConfig, dump_config
    from registry_client.oci.digest import digest_of

    base = make_image(LAYER_1)
    registry.add("shop/base", "1", base)
    pulled = images.pull("registry.example.com/shop/base:1")
    top = images.snapshot(pulled)
    assert top is not None
    config = ImageConfig(
        platform=host_platform(), diff_ids=(digest_of(LAYER_1),), created="2001-01-01T00:00:00Z"
    )
    built = images.add_built(dump_config(config), [(digest_of(LAYER_1), top)])
    images.tag(built.id, NAME)
    images.push(NAME)
    assert f"exists {base.manifest.layers[0].digest} from shop/base" in registry.asked


def test_an_id_is_named_alone_unless_all_its_platforms_are_meant(
    images: Images, registry: FakeRegistry
) -> None:
    mine, theirs = make_image(LAYER_1), make_image(LAYER_2, platform=OTHER)
    index = registry.add_index("shop/app", "1", [(OTHER, theirs), (host_platform(), mine)])
    images.pull(NAME, OTHER)
    images.pull(NAME)
    images.tag(mine.id, "registry.example.com/shop/one:1")
    images.tag(mine.id, "registry.example.com/shop/all:1", all_platforms=True)
    assert images.push("registry.example.com/shop/one:1").digest == mine.manifest.digest
    assert images.push("registry.example.com/shop/all:1").digest == index
