"""Going through a tree in stretches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.ignore import Patterns
from builder.operations import walking
from builder.operations.selection import Tree, select
from builder.operations.walking import LONGEST, Item, Stretch, stretches
from runtime.errors import InvalidInput
from runtime.store.layers.writer import order_key


def walked(top: Path) -> list[Stretch]:
    return list(stretches(str(top), os.stat(top).st_ino, ""))


def names(found: list[Stretch]) -> list[str]:
    return [item.name for stretch in found for item in stretch.items()]


@pytest.mark.parametrize("at_once", [20_000, 3, 1])
def test_everything_comes_once_in_the_order_of_a_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(walking, "_RUN", at_once)
    for name in (
        "b/one",
        "b/sub/deep",
        "a",
        "b.txt",
        "b/two",
        "é/x",
        os.fsdecode(b"\xff"),
        "\U0001f600",
        "zz/",
    ):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir() if name.endswith("/") else place.touch()
    found = names(walked(tmp_path))
    everything = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert found == sorted(everything, key=lambda name: order_key(os.fsencode(name)))


def test_a_stretch_ends_at_a_directory(tmp_path: Path) -> None:
    (tmp_path / "b" / "inner").mkdir(parents=True)
    for name in ("a", "b/x", "c", "d"):
        (tmp_path / name).write_text("")
    found = [(each.directory and each.directory.name, each.prefix, each.names) for each in walked(tmp_path)]
    assert found == [
        (None, "", ["a"]),
        ("b", "b/", []),
        ("b/inner", "b/inner/", []),
        (None, "b/", ["x"]),
        (None, "", ["c", "d"]),
    ]


def test_a_large_directory_comes_in_many_stretches_that_its_names_decide(tmp_path: Path) -> None:
    for number in range(2 * LONGEST + 3):
        (tmp_path / f"f{number:05}").write_text("")
    (tmp_path / "ignored").write_text("")
    assert [len(each.names) for each in walked(tmp_path)] == [LONGEST, LONGEST, 4]
    (group,) = select(Tree(str(tmp_path), ignore=Patterns.parse("f00000\nignored")), ["."])
    assert [len(each.names) for each in group.stretches()] == [LONGEST, LONGEST, 2]


def test_a_tree_may_be_deeper_than_our_stack(tmp_path: Path) -> None:
    depth = 1900
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    try:
        found = walked(tmp_path)
        assert len(found) == depth
        assert found[-1].directory is not None and found[-1].directory.name == "/".join("d" * depth)
    finally:
        from runtime.store.durable import remove_tree

        remove_tree(str(tmp_path / "d"))


def test_a_directory_that_became_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "b").mkdir()
    (tmp_path / "tree" / "b" / "file").write_text("")
    walk = stretches(str(tmp_path / "tree"), 0, "")
    assert next(walk).directory is not None
    (tmp_path / "tree" / "b" / "file").unlink()
    (tmp_path / "tree" / "b").rmdir()
    (tmp_path / "tree" / "b").symlink_to("/etc")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        list(walk)


def test_a_single_file_keeps_the_name_it_was_asked_by(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (group,) = select(Tree(str(tmp_path)), ["link"])
    (stretch,) = group.stretches()
    (item,) = stretch.files()
    assert item == Item("link", str(tmp_path / "real"), item.status)
    assert stretch.inode == os.stat(tmp_path).st_ino
