"""Images known by manifest and config only: when their layers come, what a layer on its way shows, what goes wrong."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from registry_client import errors as registry_errors
from registry_client.oci.digest import Digest
from registry_client.oci.platform import Platform, host_platform
from registry_client.reference import parse_reference
from runtime.cancel import Cancel
from runtime.errors import Cancelled, InvalidInput, NotFound, Unavailable
from runtime.events import Event, Finished, Outcome, Progress, Started
from runtime.images import Image, Images
from runtime.images.lookup import Lookup
from runtime.images.remote import RemoteImage
from runtime.store import Store
from tests.support.store import Entry, FakeRegistry, make_image, make_tar

NAME = "registry.example.com/shop/app:1"
FIRST = make_tar(
    Entry("first", b"1"), Entry("noise", random.Random(1).randbytes(800_000)), Entry("last", b"2")
)
SECOND = make_tar(Entry("second", b"2"))
OTHER = Platform("linux", "riscv64")
PATIENCE = 60.0


def look_up(images: Images, registry: FakeRegistry, platform: Platform | None = None) -> Image | RemoteImage:
    lookup = Lookup(images.store, parse_reference(NAME))
    return images.look_up(lookup, registry, platform or host_platform(), Cancel())


def remote(images: Images, registry: FakeRegistry) -> RemoteImage:
    found = look_up(images, registry)
    assert isinstance(found, RemoteImage)
    return found


def layer_requests(registry: FakeRegistry, made) -> list[str]:  # type: ignore[no-untyped-def]
    digests = [layer.digest for layer in made.manifest.layers]
    return [each for each in registry.asked if each.removeprefix("blob ") in digests]


def test_looking_up_fetches_manifest_and_config_and_records_nothing(
    images: Images, registry: FakeRegistry, store: Store
) -> None:
    made = make_image(FIRST, SECOND)
    digest = registry.add("shop/app", "1", made)
    found = remote(images, registry)
    assert (found.image.id, found.image.manifest_digest) == (made.id, digest)
    assert found.image.repo_digests == (f"registry.example.com/shop/app@{digest}",)
    assert layer_requests(registry, made) == []
    assert images.list() == () and images.find(NAME) is None and images.find(made.id) is None
    assert not found.is_unpacked


def test_brought_it_is_an_image_like_any_other(
    images: Images, registry: FakeRegistry, events: list[Event]
) -> None:
    made = make_image(FIRST, SECOND)
    registry.add("shop/app", "1", made)
    found = remote(images, registry)
    events.clear()
    assert found.bring(Cancel(), "build/pull-1", "build").id == made.id
    assert images.get(NAME).id == made.id and found.is_unpacked and found.is_here
    assert len(layer_requests(registry, made)) == 2
    assert isinstance(look_up(images, registry), Image)
    started = [each for each in events if isinstance(each, Started)]
    assert [(each.node, each.parent) for each in started] == [("build/pull-1", "build")]
    assert {each.node for each in events if isinstance(each, Progress)} == {"build/pull-1"}


def test_one_lookup_asks_once_for_what_a_name_means_on_all_platforms(
    images: Images, registry: FakeRegistry
) -> None:
    mine, theirs = make_image(FIRST), make_image(SECOND, platform=OTHER)
    registry.add_index("shop/app", "1", [(OTHER, theirs), (host_platform(), mine)])
    lookup = Lookup(images.store, parse_reference(NAME))
    found = [images.look_up(lookup, registry, each, Cancel()) for each in (host_platform(), OTHER)]
    assert [each.image.id for each in found if isinstance(each, RemoteImage)] == [mine.id, theirs.id]
    assert registry.asked.count("manifest 1") == 1


def test_a_layer_is_unpacked_while_it_comes(images: Images, registry: FakeRegistry, store: Store) -> None:
    made = make_image(FIRST)
    registry.add("shop/app", "1", made)
    size = len(made.blobs[0])
    seen: list[bool] = []

    def look(digest: Digest, offset: int) -> None:
        if digest == made.manifest.layers[0].digest and offset + (64 << 10) >= size:
            seen.append(appears(store, "first"))

    registry.on_chunk = look
    remote(images, registry).bring(Cancel(), "pull")
    assert seen == [True]


def appears(store: Store, name: str) -> bool:
    """Whether a file comes to lie in a draft while nothing more of its layer is sent."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.02)):
        if any(Path(store.snapshots.drafts).glob(f"*/fs/{name}")):
            return True
        pause.wait(0.02)
    return False


def test_a_partial_blob_that_is_wrong_is_unpacked_when_it_came_again(
    images: Images, registry: FakeRegistry, store: Store
) -> None:
    made = make_image(FIRST)
    registry.add("shop/app", "1", made)
    digest = made.manifest.layers[0].digest
    wrong = make_image(make_tar(Entry("wrong", random.Random(2).randbytes(500_000)))).blobs[0]
    with store.content.writer(digest, len(made.blobs[0]), resume_key=digest) as writer:
        writer.write(wrong[:300_000])
    image = remote(images, registry).bring(Cancel(), "pull")
    top = images.snapshot(image)
    assert top is not None
    assert sorted(os.listdir(store.snapshots.path(top))) == ["first", "last", "noise"]


def test_a_layer_that_broke_off_is_named_with_its_image_and_what_came_is_kept(
    images: Images, registry: FakeRegistry, events: list[Event]
) -> None:
    made = make_image(SECOND, FIRST)
    registry.add("shop/app", "1", made)
    digest = made.manifest.layers[1].digest
    found = remote(images, registry)

    def break_off(asked: Digest, offset: int) -> None:
        if asked == digest and offset > 300_000:
            raise registry_errors.Unreachable("cannot pull blob: no answer from registry.example.com")

    registry.on_chunk = break_off
    with pytest.raises(Unavailable) as caught:
        found.bring(Cancel(), "pull")
    assert f"layer 2 of 2 of {NAME} ({digest}): cannot pull blob" in caught.value.message
    assert "try again when registry.example.com answers" in caught.value.hint
    assert isinstance(events[-1], Finished) and events[-1].outcome is Outcome.ERROR
    assert images.list() == () and images.find(NAME) is None
    registry.on_chunk = lambda asked, offset: None
    found.bring(Cancel(), "pull")
    assert max(registry.offsets) > 300_000


def test_a_layer_the_registry_no_longer_has_leads_to_pull(images: Images, registry: FakeRegistry) -> None:
    made = make_image(SECOND)
    registry.add("shop/app", "1", made)
    found = remote(images, registry)

    def gone(asked: Digest, offset: int) -> None:
        raise registry_errors.NotFound("no such blob", status=404)

    registry.on_chunk = gone
    with pytest.raises(NotFound, match="layer 1 of 1") as caught:
        found.bring(Cancel(), "pull")
    assert "--pull" in caught.value.hint


def test_bytes_that_are_not_the_blob_leave_nothing(
    images: Images, registry: FakeRegistry, store: Store
) -> None:
    made = make_image(FIRST)
    registry.add("shop/app", "1", made)
    digest = made.manifest.layers[0].digest
    found = remote(images, registry)
    registry.blobs[digest] = registry.blobs[digest][:-1] + b"?"
    with pytest.raises(InvalidInput, match="does not match its digest"):
        found.bring(Cancel(), "pull")
    assert not store.content.has(digest) and images.list() == ()
    assert os.listdir(store.snapshots.drafts) == []


def test_a_blob_is_no_form_of_a_layer_it_does_not_unpack_to_even_where_that_is_unpacked(
    images: Images, registry: FakeRegistry
) -> None:
    from registry_client.oci.manifest import make_manifest
    from tests.support.store import MadeImage

    honest, other = make_image(FIRST), make_image(SECOND)
    registry.add("shop/app", "1", honest)
    images.pull(NAME)
    manifest = make_manifest(honest.manifest.config, other.manifest.layers)
    registry.add("shop/app", "1", MadeImage(honest.config, other.layers, other.blobs, manifest))
    with pytest.raises(InvalidInput, match="unpacks to"):
        images.pull(NAME)
    with pytest.raises(InvalidInput, match="unpacks to"):
        remote(images, registry).bring_blob(other.manifest.layers[0].digest, "pull")
    forms = images.records.layer_forms(images.get(NAME).diff_ids[0])
    assert [form.digest for form in forms] == [honest.manifest.layers[0].digest]


def test_a_cancelled_fetch_ends_at_once_and_is_told_as_that(
    images: Images, registry: FakeRegistry, events: list[Event]
) -> None:
    registry.add("shop/app", "1", make_image(FIRST, SECOND))
    found, cancel = remote(images, registry), Cancel()
    registry.on_chunk = lambda asked, offset: cancel.cancel("enough") if offset > 200_000 else None
    with pytest.raises(Cancelled):
        found.bring(cancel, "pull")
    assert isinstance(events[-1], Finished) and events[-1].outcome is Outcome.CANCELLED
    assert images.list() == ()


def test_images_that_share_their_lowest_layer_do_not_wait_for_each_others_others(
    tmp_path: Path, store: Store, registry: FakeRegistry
) -> None:
    slow, quick = make_image(SECOND, FIRST), make_image(SECOND, make_tar(Entry("quick", b"q")))
    registry.add("shop/app", "1", slow)
    registry.add("shop/app", "2", quick)
    waits, go_on = threading.Event(), threading.Event()

    def hold(asked: Digest, offset: int) -> None:
        if asked == slow.manifest.layers[1].digest:
            waits.set()
            assert go_on.wait(PATIENCE)

    registry.on_chunk = hold
    thread = threading.Thread(target=lambda: Images(store, registry).pull(NAME))
    thread.start()
    try:
        assert waits.wait(PATIENCE)
        with Store.open(store.root) as own:
            assert Images(own, registry).pull("registry.example.com/shop/app:2").id == quick.id
    finally:
        go_on.set()
        thread.join()
    assert Images(store, registry).get(NAME).id == slow.id


def test_a_layer_that_is_here_nowhere_is_known_by_where_it_can_be_had(
    images: Images, registry: FakeRegistry, store: Store
) -> None:
    made = make_image(FIRST)
    registry.add("shop/app", "1", made)
    remote(images, registry)
    layer = made.manifest.layers[0]
    assert images.elsewhere.form(Digest(images_diff_id(made))) == layer
    assert images.elsewhere.bring(layer.digest, "pull")
    assert store.content.has(layer.digest)
    assert not images.elsewhere.bring(made.manifest.digest, "pull")


def images_diff_id(made) -> str:  # type: ignore[no-untyped-def]
    from registry_client.oci.config import parse_config

    return parse_config(made.config).diff_ids[0]
