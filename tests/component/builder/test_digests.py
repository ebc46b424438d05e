"""What is remembered of files: exactly as long as their statuses say that they are the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import digests
from builder.content import Content, ContentWriter, content_of
from builder.digests import FileDigests, NoMemory
from builder.operations import regular
from builder.operations.selection import Tree, select
from runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("a/one", "a/two", "b/three", "top"):
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    (tree / "a" / "link").symlink_to("one")
    return tree


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are looked at one by one, opened or not."""
    seen: list[str] = []

    def counting(item: object, *rest: object) -> bytes:
        seen.append(item.name)  # type: ignore[attr-defined]
        return original(item, *rest)  # type: ignore[arg-type]

    original = regular.read_digest
    monkeypatch.setattr(regular, "read_digest", counting)
    return seen


def quiet(store: Store, tree: Path) -> FileDigests:
    memory = FileDigests(store.db, str(tree))
    memory._latest_ns = 2**63  # as if all files had been left alone for long
    return memory


def content(store: Store, tree: Path, *, keep_lines: bool = False) -> Content:
    memory = quiet(store, tree)
    found = content_of(select(Tree(str(tree)), ["."]), memory, keep_owner=False, keep_lines=keep_lines)
    memory.save()
    return found


def unremembered(tree: Path) -> str:
    return content_of(select(Tree(str(tree)), ["."]), NoMemory(), keep_owner=False).digest


def test_nothing_is_looked_at_twice(store: Store, tree: Path, reads: list[str]) -> None:
    first = content(store, tree)
    assert sorted(reads) == ["a/link", "a/one", "a/two", "b/three", "top"]
    reads.clear()
    assert content(store, tree) == first
    assert reads == []


def test_only_the_stretch_with_a_change_is_looked_at(store: Store, tree: Path, reads: list[str]) -> None:
    content(store, tree)
    reads.clear()
    (tree / "a" / "two").write_text("changed")
    assert content(store, tree).digest == unremembered(tree)
    assert set(reads[:3]) == {"a/link", "a/one", "a/two"} and "top" not in reads[:3]


def test_unchanged_files_beside_a_change_are_not_opened(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content(store, tree)
    (tree / "a" / "two").write_text("changed")
    opened = []

    def counting(path: str, *rest: int) -> int:
        opened.append(path)
        return original(path, *rest)

    original = os.open
    monkeypatch.setattr(regular.os, "open", counting)
    content(store, tree)
    assert [path for path in opened if os.path.isfile(path) and str(tree) in path] == [str(tree / "a/two")]


def _grow(path: Path) -> None:
    path.write_text("longer than it was")


def _same_size(path: Path) -> None:
    status = os.stat(path)
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the ctime tells


def _mode(path: Path) -> None:
    path.chmod(0o705)


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(os.path.getsize(path)))
    os.replace(other, path)


def _rename(path: Path) -> None:
    path.rename(path.with_name("renamed"))


def _attribute(path: Path) -> None:
    os.setxattr(path, "user.note", b"1")


def _become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [_grow, _same_size, _mode, _replace, _rename, _attribute, _become_link])
def test_a_change_is_seen(store: Store, tree: Path, change: object) -> None:
    before = content(store, tree).digest
    change(tree / "a" / "one")  # type: ignore[operator]
    after = content(store, tree).digest
    assert after != before
    assert after == unremembered(tree)


def test_files_that_were_just_written_are_read_again(store: Store, tree: Path, reads: list[str]) -> None:
    memory = FileDigests(store.db, str(tree))  # all of them were made a moment ago
    content_of(select(Tree(str(tree)), ["."]), memory, keep_owner=False)
    memory.save()
    reads.clear()
    content(store, tree)
    assert sorted(reads) == ["a/link", "a/one", "a/two", "b/three", "top"]


def test_lines_are_told_of_files_that_are_remembered(store: Store, tree: Path) -> None:
    content(store, tree)
    found = content(store, tree, keep_lines=True)
    lines = [line.split(b"\0") for _, piece in found.pieces for line in (piece or b"").split(b"\n")]
    assert [line[-1] for line in lines] == [b"a", b"a/link", b"a/one", b"a/two", b"b", b"b/three", b"top"]
    assert found.digest == content(store, tree).digest


def test_what_is_left_out_does_not_count_and_what_is_remembered_does_not_hide_it(
    store: Store, tree: Path
) -> None:
    from builder.ignore import Patterns

    whole = content(store, tree).digest
    chosen = select(Tree(str(tree), ignore=Patterns.parse("a/two")), ["."])
    memory = quiet(store, tree)
    part = content_of(chosen, memory, keep_owner=False).digest
    memory.save()
    (tree / "a" / "two").unlink()
    assert part != whole
    assert part == unremembered(tree)


def test_much_that_is_learned_is_saved_on_the_way(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(digests, "_MOST_LEARNED", 64)
    monkeypatch.setattr(digests, "_MOST_LOADED", 64)
    first = content(store, tree)
    assert len(store.db.read("SELECT directory FROM file_digests")) == 3
    reads.clear()
    assert content(store, tree, keep_lines=True).digest == first.digest


def test_files_beside_a_change_in_a_large_directory_stay_known(
    store: Store, tmp_path: Path, reads: list[str]
) -> None:
    """All but one stretch of it are met by their digests alone, which is no sign that their files are gone."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(4000):
        (flat / f"f{number:04}").touch()
    content(store, flat)
    (flat / "f0000").write_text("changed")
    content(store, flat)
    reads.clear()
    (flat / "a").touch()  # which moves every stretch
    opened = []
    before = regular.os.open

    def opening(path: str, *rest: int) -> int:
        opened.append(path)
        return before(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regular.os, "open", opening)
        content(store, flat)
    assert len(reads) == 4001
    assert [path for path in opened if os.path.isfile(path) and str(flat) in path] == [str(flat / "a")]


def test_lines_that_are_stored_are_not_told_again(store: Store, tree: Path, reads: list[str]) -> None:
    first = content(store, tree, keep_lines=True)
    writer = ContentWriter(
        keep_owner=False, keep_lines=True, stored={name: len(lines or b"") for name, lines in first.pieces}
    )
    memory = quiet(store, tree)
    (group,) = select(Tree(str(tree)), ["."])
    writer.group(group)
    for stretch in group.stretches():
        if stretch.directory is not None:
            writer.directory(stretch.directory)
        known = memory.know_stretch(memory.fingerprint(stretch, writer.flavour))
        assert known is not None and writer.takes_known(known)
        writer.known(known)
    again = writer.finish()
    assert again.digest == first.digest
    assert again.pieces == tuple((name, None) for name, _ in first.pieces)


def test_lines_of_files_that_come_one_by_one_share_a_piece(store: Store, tree: Path) -> None:
    chosen = select(Tree(str(tree)), ["a/one", "a/two", "top"])
    found = content_of(chosen, NoMemory(), keep_owner=False, keep_lines=True)
    ((_, lines),) = found.pieces
    assert lines is not None
    assert [line.rpartition(b"\0")[2] for line in lines.split(b"\n")] == [b"one", b"two", b"top"]


def test_directories_that_are_gone_and_contexts_nobody_builds_are_forgotten(
    store: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content(store, tree)
    with store.db.transaction() as connection:
        rows = [(1, number, b"") for number in range(10_000_000, 10_005_000)]
        connection.executemany("INSERT INTO file_digests VALUES (?, ?, ?)", rows)
    (tree / "top").write_text("changed")
    content(store, tree)
    assert len(store.db.read("SELECT directory FROM file_digests")) == 3
    monkeypatch.setattr(digests, "_KEPT_NS", -(10**12))
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("x")
    content(store, other)
    assert len(store.db.read("SELECT root FROM digest_roots")) == 1
    assert len(store.db.read("SELECT directory FROM file_digests")) == 1


def test_inodes_may_be_larger_than_sqlite_counts() -> None:
    assert digests._signed(2**63 + 5) == 5 - 2**63
    assert digests._signed(5) == 5
