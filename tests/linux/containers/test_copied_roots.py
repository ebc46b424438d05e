"""Containers of a store on an overlay: their roots are trees of their own. What is promised elsewhere holds here too."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.containers.roots import tree_directory
from runtime.containers.spec import Mount
from runtime.events import Warned
from runtime.sandbox.spawner import Spawner
from runtime.store.copies import make_tree
from tests.linux.containers import test_crashes, test_volumes_and_copies
from tests.linux.containers.test_volumes_and_copies import archive
from tests.support.containers import World
from tests.support.places import mounted, on_overlay

pytestmark = pytest.mark.linux

# The same tests, in the world below.
test_a_new_volume_gets_what_the_image_has_there = (
    test_volumes_and_copies.test_a_new_volume_gets_what_the_image_has_there
)
test_a_link_in_the_image_does_not_lead_out = (
    test_volumes_and_copies.test_nocopy_leaves_it_empty_and_a_link_in_the_image_does_not_lead_out
)
test_a_copy_on_write_bind_never_changes_the_host = (
    test_volumes_and_copies.test_a_copy_on_write_bind_never_changes_the_host
)
test_files_go_in_and_come_out = test_volumes_and_copies.test_files_go_in_and_come_out
test_links_of_a_container_lead_nowhere_but_into_it = (
    test_volumes_and_copies.test_links_of_a_container_lead_nowhere_but_into_it
)
test_a_container_starts_after_something_was_copied_into_it = (
    test_volumes_and_copies.test_a_container_starts_after_something_was_copied_into_it
)
test_exec_joins_the_container = test_volumes_and_copies.test_exec_joins_the_container
test_a_killed_shim_takes_its_container_along = (
    test_crashes.test_a_killed_shim_takes_its_container_along_and_the_state_says_so
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, busybox_tar: bytes) -> Iterator[World]:
    with Spawner.start() as spawner, on_overlay(tmp_path_factory.mktemp("copied")) as place:
        world = World(place / "store", spawner, busybox_tar)
        try:
            yield world
        finally:
            world.close()


SCRIPT = "rm -r /data/twin; echo new > /data/new; mkdir /made; echo x > /made/x; chmod 700 /tmp; mv /etc/passwd /etc/moved"


def own_changes(world: World) -> list[tuple[str, str]]:
    container = world.create("sh", "-c", SCRIPT)
    world.containers.start(container.id)
    assert world.ended(container.id).code == 0
    found = list(world.containers.changes(container.id))
    world.containers.remove(container.id)
    return found


def test_changes_are_those_an_overlay_shows(world: World, busybox_tar: bytes, tmp_path: Path) -> None:
    usual = World(tmp_path / "store", world.spawner, busybox_tar)
    try:
        assert own_changes(world) == own_changes(usual)
    finally:
        usual.close()


def test_what_is_written_stays_from_one_start_to_the_next(world: World) -> None:
    container = world.create("sh", "-c", "cat /n; echo more >> /n")
    for _ in range(2):
        world.containers.start(container.id)
        world.ended(container.id)
    out = io.BytesIO()
    world.containers.copy_out(container.id, "/n", out)
    assert b"more\nmore\n" in out.getvalue()
    world.containers.remove(container.id)
    assert world.run("cat", "/n").code == 1


def test_it_is_said_once_that_roots_are_copied(world: World) -> None:
    del world.events[:]
    world.containers.told_of_copies = False
    for _ in range(2):
        world.run("true")
    told = [event for event in world.events if isinstance(event, Warned)]
    assert ["copied, which is slower" in event.message for event in told] == [True]


def test_an_image_as_a_mount_is_read_only_and_stays_as_it_is(world: World) -> None:
    with world.store.snapshots.prepare(world.images.snapshot(world.images.get("busybox"))) as draft:
        Path(draft.upper, "second").write_text("2\n")
        top = draft.commit()
    mount = Mount(type="image", source="busybox", target="/img")
    layers = world.store.snapshots.lowers(top.id)
    # Also one of several layers, which has to be put together.
    seen = world.containers.images.snapshot
    world.containers.images.snapshot = lambda image, cancel=None: top.id  # type: ignore[method-assign]
    try:
        ran = world.run("sh", "-c", "cat /img/second /img/data/file; echo x > /img/second", mounts=(mount,))
    finally:
        world.containers.images.snapshot = seen  # type: ignore[method-assign]
    assert ran.stdout == b"2\nfrom the image\n"
    assert b"Read-only" in ran.stderr
    assert Path(layers[0], "second").read_text() == "2\n"


def test_a_checkout_is_copied_without_what_is_mounted_in_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_text("f\n")
    bind = Mount(type="bind", source=str(tmp_path), target="/b", copy_on_write=True)
    with mounted("tmpfs", tmp_path / "sub", "tmpfs"):
        (tmp_path / "sub" / "inside").write_text("i\n")
        ran = world.run("sh", "-c", "cat /b/file; ls /b/sub; echo x > /b/new", mounts=(bind,))
    assert ran.text == "f\n"
    assert sorted(os.listdir(tmp_path)) == ["file", "sub"]


def test_half_a_tree_is_none(world: World) -> None:
    """Whoever was killed while he made it left it beside its place."""
    container = world.create("true")
    code = """
import os, signal, sys
from runtime.store import merging
real = merging.Merged.add
def add(self, layer):
    real(self, layer)
    os.kill(os.getpid(), signal.SIGKILL)
merging.Merged.add = add
from runtime.store.copies import make_tree
make_tree(sys.argv[1], sys.argv[2:3], sys.argv[3])
"""
    layer = world.store.snapshots.lowers(container.snapshot)[0]
    upper = os.path.join(container.directory, "upper")
    command = [sys.executable, "-c", code, tree_directory(container), layer, upper]
    assert subprocess.run(command).returncode == -9
    left = [name for name in os.listdir(container.directory) if name.startswith("copied.")]
    assert len(left) == 1
    world.containers.start(container.id)
    assert world.ended(container.id).code == 0
    assert [name for name in os.listdir(container.directory) if name.startswith("copied")] == ["copied"]
    world.containers.remove(container.id)


def test_what_a_container_has_from_when_overlay_served_is_kept(tmp_path: Path) -> None:
    layer, upper = tmp_path / "layer" / "fs", tmp_path / "upper"
    for place in (layer, upper):
        place.mkdir(parents=True)
    (layer / "old").write_text("old")
    (layer / "gone").write_text("gone")
    os.mknod(upper / "gone", 0o020000, 0)
    (upper / "mine").write_text("mine")
    root = make_tree(str(tmp_path / "copied"), [str(layer)], str(upper))
    assert sorted(os.listdir(root)) == ["mine", "old"]


def test_a_tar_goes_into_a_container_that_never_ran(world: World) -> None:
    container = world.create("cat", "/tmp/given")
    world.containers.copy_in(container.id, "/tmp", archive({"given": b"given\n"}))
    assert ("A", "/tmp/given") in world.containers.changes(container.id)
    world.containers.remove(container.id)
