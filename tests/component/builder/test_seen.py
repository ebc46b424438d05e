"""What a look at a context came upon stands for the context for a moment, as long as it is all and of the same directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.content import content_of
from builder.digests import NoMemory
from builder.ignore import Patterns
from builder.operations import seen as module
from builder.operations.seen import Seen, seen_of
from builder.operations.selection import Group, Tree, select
from builder.operations.walking import Stretch
from runtime.errors import InvalidInput


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("a/one", "a/two", "b/three", "top"):
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    return tree


def group_of(tree: Tree, pattern: str = ".") -> Group:
    (group,) = select(tree, [pattern])
    return group


def looked(tree: Tree, pattern: str = ".") -> Seen:
    groups = select(tree, [pattern])
    seen = seen_of(tree, groups)
    assert seen is not None
    content_of(groups, NoMemory(), keep_owner=False, seen=seen)
    return seen


def digest(group: Group) -> str:
    return content_of([group], NoMemory(), keep_owner=False).digest


def stretches(group: Group) -> list[Stretch]:
    return list(group.stretches())


def test_it_tells_of_the_files_what_the_directory_does(tree: Path) -> None:
    group = group_of(Tree(str(tree)))
    known = looked(Tree(str(tree))).instead_of(group, Tree(str(tree)))
    assert known is not group
    for one, other in zip(stretches(group), stretches(known), strict=True):
        assert list(one.entries()) == list(other.entries())
        assert (one.text(), one.packed(), one.prefix, one.path) == (
            other.text(),
            other.packed(),
            other.prefix,
            other.path,
        )
        assert [one.item(at) for at in range(len(one.names))] == [
            other.item(at) for at in range(len(one.names))
        ]


def test_a_stretch_is_made_anew_of_what_is_there_now(tree: Path) -> None:
    known = looked(Tree(str(tree))).instead_of(group_of(Tree(str(tree))), Tree(str(tree)))
    (tree / "a" / "one").write_text("changed")
    (tree / "a" / "two").unlink()
    (tree / "b" / "three").unlink()
    anew = [stretch.anew() for stretch in stretches(known)]
    assert [stretch.names for stretch in anew] == [["one"], [], ["top"]]
    assert anew[0].statuses == [os.lstat(tree / "a" / "one")]


def test_what_changed_since_is_not_taken_for_what_was_seen(tree: Path) -> None:
    known = looked(Tree(str(tree))).instead_of(group_of(Tree(str(tree))), Tree(str(tree)))
    (stretch,) = [each for each in stretches(known) if each.prefix == "a/"]
    assert stretch.item(1).name == "a/two"
    (tree / "a" / "two").write_text("changed")
    with pytest.raises(InvalidInput, match="two changed while it was read"):
        stretch.item(1)
    (tree / "a" / "one").unlink()
    (tree / "a" / "one").mkdir()
    with pytest.raises(InvalidInput, match="one changed while it was read"):
        stretch.anew()


def test_it_stands_for_no_other_directory(tree: Path, tmp_path: Path) -> None:
    plain = Tree(str(tree))
    seen = looked(plain)
    (tmp_path / "other").mkdir()
    other = Tree(str(tmp_path / "other"))
    assert seen.instead_of(group := group_of(other), other) is group
    assert seen.instead_of(group := group_of(plain, "a"), plain) is group
    ignoring = Tree(str(tree), ignore=Patterns.parse("a/one"))
    assert seen.instead_of(group := group_of(ignoring), ignoring) is group
    same = Tree(str(tree), ignore=Patterns.parse("a/one"))
    assert looked(same).instead_of(group, ignoring) is not group


def test_a_link_that_leads_elsewhere_since_is_followed(tree: Path) -> None:
    context = Tree(str(tree))
    (tree / "now").symlink_to("a")
    seen = looked(context, "now")
    (tree / "now").unlink()
    (tree / "now").symlink_to("b")
    group = group_of(context, "now")
    assert digest(seen.instead_of(group, context)) == digest(group_of(context, "b"))


def test_it_is_good_for_a_moment_only(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looked(Tree(str(tree)))
    monkeypatch.setattr(module, "_FRESH", -1.0)
    assert seen.instead_of(group := group_of(Tree(str(tree))), Tree(str(tree))) is group


def test_of_a_large_context_nothing_is_kept(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 1000)
    seen = looked(Tree(str(tree)))
    assert seen._stretches == []
    assert seen.instead_of(group := group_of(Tree(str(tree))), Tree(str(tree))) is group


def test_a_look_that_was_cut_short_stands_for_nothing(tree: Path) -> None:
    context = Tree(str(tree))
    group = group_of(context)
    seen = Seen(context, group)
    seen.add(next(group.stretches()))
    assert seen.instead_of(group, context) is group


def test_only_the_contents_of_one_directory_are_kept(tree: Path) -> None:
    context = Tree(str(tree))
    assert seen_of(context, select(context, ["top"])) is None
    assert seen_of(context, select(context, ["a", "b"])) is None
    assert seen_of(context, select(context, ["a/one"], parents=True)) is None
