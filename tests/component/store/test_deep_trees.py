"""Trees that are deeper than any path is long: a container can leave one."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.store.durable import remove_tree


def make_deep(top: Path, depth: int, name: str) -> None:
    """As `mkdir` and `cd` in turn do; a path to the end of it would be longer than the kernel takes."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        os.close(here)
        here = below
    os.close(here)


def test_a_tree_deeper_than_a_path_is_long_can_be_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    make_deep(top, 1200, "d" * 20)
    remove_tree(str(top))
    assert os.listdir(tmp_path) == []


def test_a_wide_tree_and_links_out_of_it_are_removed_without_what_they_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    top = tmp_path / "top"
    for number in range(30):
        (top / str(number) / "below").mkdir(parents=True)
        (top / str(number) / "below" / "file").write_text("x" * 10_000)
    (top / "link").symlink_to(outside)
    assert remove_tree(str(top)) >= 30 * 8192
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (outside / "kept").read_text() == "kept"
