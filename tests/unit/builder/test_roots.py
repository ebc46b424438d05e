"""A root of several layers, read without a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.operations.roots import Root, clean
from runtime.errors import InvalidInput

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="whiteouts are device nodes, which only root can make"
)


class Layers:
    def __init__(self, directory: Path) -> None:
        self.upper, self.top, self.bottom = (directory / name for name in ("upper", "top", "bottom"))
        for layer in (self.upper, self.top, self.bottom):
            layer.mkdir()

    def root(self) -> Root:
        return Root(str(self.upper), [str(self.top), str(self.bottom)])

    def write(self, layer: Path, name: str, text: str = "") -> Path:
        place = layer / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def hide(self, layer: Path, name: str) -> None:
        place = layer / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(place, 0o020000, 0)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


def test_the_topmost_file_is_seen(layers: Layers) -> None:
    layers.write(layers.bottom, "a/x", "old")
    layers.write(layers.top, "a/x", "new")
    layers.write(layers.bottom, "a/y", "kept")
    root = layers.root()
    assert root.read("a/x", 10) == b"new"
    assert root.read("a/y", 10) == b"kept"


def test_whiteouts_and_opaque_directories_hide_what_is_below(layers: Layers) -> None:
    layers.write(layers.bottom, "a/x", "old")
    layers.write(layers.bottom, "b/x", "old")
    layers.write(layers.bottom, "c", "old")
    layers.hide(layers.top, "c")
    layers.hide(layers.top, "a")
    layers.write(layers.top, "b/y", "new")
    os.setxattr(layers.top / "b", "trusted.overlay.opaque", b"y")
    root = layers.root()
    assert root.read("a/x", 10) is None
    assert root.read("b/x", 10) is None
    assert root.read("b/y", 10) == b"new"
    assert root.lstat("c") is None


def test_links_are_followed_inside_the_root_only(layers: Layers) -> None:
    layers.write(layers.bottom, "real/file", "inside")
    (layers.top / "absolute").symlink_to("/real")
    (layers.top / "up").symlink_to("../../../real")
    root = layers.root()
    assert root.resolve("absolute/file") == "real/file"
    assert root.resolve("up/file") == "real/file"
    assert root.resolve("absolute/new/deep") == "real/new/deep"
    assert root.read("absolute/file", 10) == b"inside"


def test_a_raised_directory_keeps_what_it_was(layers: Layers) -> None:
    layers.write(layers.bottom, "etc/deep/file")
    os.chown(layers.bottom / "etc", 5, 6)
    (layers.bottom / "etc").chmod(0o2751)
    os.utime(layers.bottom / "etc", ns=(10, 20))
    root = layers.root()
    root.raise_up("etc/deep")
    root.settle()
    status = os.stat(layers.upper / "etc")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 6, 0o2751)
    assert status.st_mtime_ns == 20
    assert os.listdir(layers.upper / "etc") == ["deep"]


def test_missing_directories_are_made_with_the_time_asked_for(layers: Layers) -> None:
    layers.write(layers.bottom, "a/file")
    root = layers.root()
    assert root.ensure("a/b/c", uid=7, gid=8, mode=0o750, mtime_ns=10**18)
    root.settle()
    status = os.stat(layers.upper / "a/b/c")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_mtime_ns) == (
        7,
        8,
        0o750,
        10**18,
    )
    assert not root.ensure("a/b", mtime_ns=0)


def test_a_file_in_the_way_of_a_directory_is_the_users_mistake(layers: Layers) -> None:
    layers.write(layers.bottom, "a/file")
    with pytest.raises(InvalidInput, match="/a/file is not a directory"):
        layers.root().ensure("a/file/below", mtime_ns=0)


def test_only_regular_files_are_read(layers: Layers) -> None:
    os.mkfifo(layers.top / "pipe")
    (layers.top / "dir").mkdir()
    root = layers.root()
    assert root.read("pipe", 10) is None
    assert root.read("dir", 10) is None
    assert root.read("nothing", 10) is None


@pytest.mark.parametrize(
    ("path", "cleaned"), [("/a//b/./c", "a/b/c"), ("../../x", "x"), ("a/../b", "b"), ("/", ""), (".", "")]
)
def test_paths_are_cleaned_as_if_the_root_were_the_top(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned
