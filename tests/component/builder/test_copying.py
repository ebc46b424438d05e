"""Copying a tree: what is kept, and that the layer hashed on the way is the one hashed afterwards."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from builder.digests import FileDigests, NoMemory
from builder.operations.copying import Copier, Style
from builder.operations.feed import LayerFeed
from builder.operations.modes import parse_mode
from builder.operations.owners import Owner
from builder.operations.roots import Root
from builder.operations.selection import Tree, select
from runtime.errors import InvalidInput
from runtime.store import Store
from runtime.store.layers import DiffInfo, hash_layer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name, size in (("a", 3), ("b/empty", 0), ("b/large", 3 << 20), ("b.txt", 10), ("z/deep/er/file", 5)):
        place = source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(size))
        os.utime(place, ns=(5 * 10**9 + 7, 5 * 10**9 + 7))
    (source / "link").symlink_to("nowhere")
    os.link(source / "a", source / "z" / "same")
    os.mkfifo(source / "pipe")
    os.mknod(source / "null", 0o020666, os.makedev(1, 3))
    (source / "b" / "tool").write_text("#!/bin/sh\n")
    (source / "b" / "tool").chmod(0o4755)
    os.setxattr(source / "b" / "tool", "user.note", b"kept")
    os.setxattr(source / "b", "user.note", b"directory")
    (source / os.fsdecode(b"\xff\xfe name")).write_text("not UTF-8")
    (source / ("long" * 40)).write_text("a long name")
    os.chown(source / "b" / "empty", 11, 12)
    return source


def copy(source: Path, target: Path, style: Style | None = None) -> DiffInfo | None:
    target.mkdir()
    root, feed = Root(str(target)), LayerFeed()
    copier = Copier(root, style or Style(), NoMemory(), feed=feed)
    root.ensure("app/in", mtime_ns=9 * 10**9)
    root.describe("app/in", feed)
    for item in select(Tree(str(source)), ["."])[0].items:
        copier.place(item, f"app/in/{item.name}")
    root.settle()
    return feed.finish()


@pytest.mark.parametrize(
    "style",
    [
        Style(),
        Style(owner=Owner(0, 0)),
        Style(owner=Owner(70000, 3_000_000)),
        Style(change_mode=parse_mode("u=rwX,go=")),
        Style(newest_ns=4 * 10**9),
    ],
    ids=["as it is", "root's", "large ids", "modes", "clamped"],
)
def test_the_layer_hashed_while_copying_is_the_one_of_the_directory(
    source: Path, tmp_path: Path, style: Style
) -> None:
    info = copy(source, tmp_path / "target", style)
    assert info == hash_layer(str(tmp_path / "target"))


def test_modes_times_links_devices_and_attributes_are_kept(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "target")
    target = tmp_path / "target" / "app" / "in"
    assert os.stat(target / "a").st_mtime_ns == 5 * 10**9 + 7
    assert os.stat(target / "b/tool").st_mode & 0o7777 == 0o4755
    assert os.getxattr(target / "b/tool", "user.note") == b"kept"
    assert os.getxattr(target / "b", "user.note") == b"directory"
    assert os.readlink(target / "link") == "nowhere"
    assert os.stat(target / "a").st_ino == os.stat(target / "z/same").st_ino
    assert os.stat(target / "null").st_rdev == os.makedev(1, 3)
    assert (os.stat(target / "b/empty").st_uid, os.stat(target / "b/empty").st_gid) == (11, 12)
    assert os.path.getsize(target / "b/large") == 3 << 20


def test_sockets_are_left_out(source: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        info = copy(source, tmp_path / "target")
    assert not (tmp_path / "target/app/in/socket").exists()
    assert info == hash_layer(str(tmp_path / "target"))


def test_a_feed_that_cannot_keep_the_order_gives_up(source: Path, tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "app" / "b").mkdir(parents=True)
    upper.mkdir()
    root, feed = Root(str(upper), [str(lower)]), LayerFeed()
    copier = Copier(root, Style(), NoMemory(), feed=feed)
    root.ensure("app", mtime_ns=0)
    root.describe("app", feed)
    for item in select(Tree(str(source)), ["."])[0].items:
        copier.place(item, f"app/{item.name}")
    assert feed.finish() is None


def test_a_file_that_grows_or_goes_while_it_is_read_is_told_of(source: Path, tmp_path: Path) -> None:
    items = select(Tree(str(source)), ["b.txt", "a"])
    (source / "b.txt").write_bytes(bytes(11))
    (source / "a").unlink()
    (tmp_path / "target").mkdir()
    copier = Copier(Root(str(tmp_path / "target")), Style(), NoMemory())
    for group in items:
        with pytest.raises(InvalidInput, match="changed while it was read"):
            copier.place(group.items[0], group.items[0].name)


def test_a_file_that_became_a_link_is_not_followed(source: Path, tmp_path: Path) -> None:
    (item,) = select(Tree(str(source)), ["b.txt"])[0].items
    (source / "b.txt").unlink()
    (source / "b.txt").symlink_to("/etc/passwd")
    (tmp_path / "target").mkdir()
    with pytest.raises(InvalidInput, match="changed while it was read"):
        Copier(Root(str(tmp_path / "target")), Style(), NoMemory()).place(item, "b.txt")


def test_digests_are_remembered_but_not_those_of_files_just_written(source: Path, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store")) as store:
        memory = FileDigests(store.db, str(source))
        memory._latest_ns = 2**63  # as if all of them had been quiet for long
        status, digest = os.lstat(source / "a"), b"digest".ljust(32)
        memory.directory(7).learn(status, digest)
        assert memory.directory(7).know(status) is None  # only in the next build
        memory.save()
        again = FileDigests(store.db, str(source))
        assert again.directory(7).know(status) == digest
        assert again.directory(8).know(status) is None
        os.utime(source / "a", (1, 1))
        assert again.directory(7).know(os.lstat(source / "a")) is None

        cautious = FileDigests(store.db, str(source))
        fresh = os.lstat(source / "b.txt")
        cautious.directory(7).learn(fresh, digest)
        cautious.save()
        assert FileDigests(store.db, str(source)).directory(7).know(fresh) is None
