"""What COPY sources name (FEATURES A-65…A-74, A-86)."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from builder.ignore import Patterns
from builder.operations.selection import Tree, select
from runtime.errors import NotFound


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "c.md", "dir/one", "dir/sub/two", "dir/sub/three.txt", "[x]", "other/one"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    (tmp_path / "link").symlink_to("dir/one")
    (tmp_path / "dirlink").symlink_to("dir")
    (tmp_path / "dir" / "inner").symlink_to("/etc/passwd")
    return tmp_path


def names(
    tree: Path, *patterns: str, ignore: str = "", exclude: str = "", parents: bool = False
) -> list[str]:
    ignoring = Patterns.parse(ignore) if ignore else None
    excluding = Patterns.parse(exclude) if exclude else None
    groups = select(Tree(str(tree), ignore=ignoring), patterns, exclude=excluding, parents=parents)
    return [item.name for group in groups for item in group.items]


def test_a_directory_gives_its_contents_sorted_parents_first(tree: Path) -> None:
    assert names(tree, "dir") == ["inner", "one", "sub", "sub/three.txt", "sub/two"]


def test_slashes_and_dots_are_cleaned_away(tree: Path) -> None:
    for pattern in ("/a.txt", "./a.txt", "../../a.txt", "dir/../a.txt", "a.txt/"):
        assert names(tree, pattern) == ["a.txt"]


def test_wildcards_do_not_cross_directories(tree: Path) -> None:
    assert names(tree, "*.txt") == ["a.txt", "b.txt"]
    assert names(tree, "dir/*/three.txt") == ["three.txt"]


def test_a_matched_directory_gives_its_contents(tree: Path) -> None:
    assert names(tree, "oth*") == ["one"]


def test_a_bracket_can_be_escaped(tree: Path) -> None:
    assert names(tree, "[[]x]") == ["[x]"]


def test_a_wildcard_may_match_nothing_but_a_plain_name_must_exist(tree: Path) -> None:
    assert names(tree, "*.none") == []
    with pytest.raises(NotFound, match='"/missing": not found'):
        names(tree, "missing")
    with pytest.raises(NotFound):
        names(tree, "a.txt/below")


def test_the_directory_a_pattern_begins_with_must_exist(tree: Path) -> None:
    assert names(tree, "dir/*.none") == names(tree, "dirlink/*.none") == names(tree, "d*/missing/x") == []
    with pytest.raises(NotFound, match='"/missing": not found'):
        names(tree, "missing/sub/*.txt")
    with pytest.raises(NotFound, match='"/dir/missing": not found'):
        names(tree, "dir/missing/*")
    with pytest.raises(NotFound, match='"/dir": not found'):
        names(tree, "dir/*", ignore="dir")


def test_what_a_pattern_names_is_followed_but_nothing_inside(tree: Path) -> None:
    assert names(tree, "link") == ["link"]
    groups = select(Tree(str(tree)), ["link"])
    assert groups[0].items[0].path.endswith("dir/one")
    assert names(tree, "dirlink") == names(tree, "dir")
    inner = next(item for item in select(Tree(str(tree)), ["dir"])[0].items if item.name == "inner")
    assert inner.path.endswith("dir/inner")


def test_no_link_leads_out_of_the_tree(tree: Path) -> None:
    (tree / "out").symlink_to("/etc/passwd")
    (tree / "up").symlink_to("../../../../../../etc/passwd")
    for name in ("out", "up", "dir/inner"):
        with pytest.raises(NotFound):
            names(tree, name)


def test_a_link_that_turns_in_circles_is_an_error(tree: Path) -> None:
    from runtime.errors import InvalidInput

    (tree / "round").symlink_to("round")
    with pytest.raises(InvalidInput, match="symbolic links"):
        names(tree, "round")


def test_ignored_files_are_not_there(tree: Path) -> None:
    assert names(tree, ".", ignore="*.txt\ndir\nother\n") == ["[x]", "c.md", "dirlink", "link"]
    with pytest.raises(NotFound, match="not found") as caught:
        names(tree, "a.txt", ignore="a.txt")
    assert "excluded by the ignore file" in caught.value.hint


def test_a_file_comes_back_below_an_ignored_directory(tree: Path) -> None:
    assert names(tree, ".", ignore="*\n!dir/sub/two\n") == ["dir", "dir/sub", "dir/sub/two"]
    assert names(tree, "dir", ignore="*\n!dir/sub/two\n") == ["sub", "sub/two"]


def test_excluded_names_are_relative_to_what_is_copied(tree: Path) -> None:
    assert names(tree, "dir", exclude="sub/*.txt\ninner") == ["one", "sub", "sub/two"]
    assert names(tree, "*.txt", exclude="a.*") == ["b.txt"]
    assert names(tree, "a.txt", "c.md", exclude="*.md") == ["a.txt"]


def test_parents_are_kept_from_the_pivot_on(tree: Path) -> None:
    assert names(tree, "dir/sub/two", parents=True) == ["dir", "dir/sub", "dir/sub/two"]
    assert names(tree, "dir/./sub/two", parents=True) == ["sub", "sub/two"]
    assert names(tree, "dir/./**/*.txt", parents=True) == ["sub", "sub/three.txt"]
    assert names(tree, "**/one", parents=True) == ["dir", "dir/one", "other", "other/one"]
    with pytest.raises(NotFound):
        names(tree, "dir/nothing", parents=True)


def test_parents_that_are_links_become_directories_and_lead_out_of_no_tree(tree: Path) -> None:
    for pattern in ("dirlink/sub/two", "dirl*/sub/two", "dirlink/sub"):
        found = select(Tree(str(tree)), [pattern], parents=True)[0].items
        assert [item.name for item in found][:2] == ["dirlink", "dirlink/sub"]
        assert stat.S_ISDIR(found[0].status.st_mode)
        assert "dirlink/sub/two" in [item.name for item in found]
    (tree / "out").symlink_to("/etc")
    with pytest.raises(NotFound, match='"/out/passwd": not found'):
        names(tree, "out/passwd", parents=True)
    assert names(tree, "out/pass*", parents=True) == names(tree, "o*/passwd", parents=True) == []
