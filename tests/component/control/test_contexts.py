"""Directories of clients that are kept in the store between builds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from builder.control import contexts
from builder.control.contexts import collect_contexts, kept_directory


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "drafts").mkdir()
    return str(tmp_path)


def keep(root: str, key: str, *, used: float = 0.0, size: int = 10) -> Path:
    """A directory of that name with a file, last used `used` seconds ago."""
    with kept_directory(root, key) as path:
        Path(path, "file").write_bytes(b"x" * size)
    lock = Path(path).parent.with_suffix(".lock")
    os.utime(lock, (time.time() - used, time.time() - used))
    return Path(path)


def test_a_client_finds_its_files_again_and_no_others(root: str) -> None:
    keep(root, "work:context")
    with kept_directory(root, "work:context") as same, kept_directory(root, "other:context") as other:
        assert os.listdir(same) == ["file"] and os.listdir(other) == []


def test_a_second_build_meanwhile_gets_a_place_of_its_own_that_goes_with_it(root: str) -> None:
    with kept_directory(root, "a") as first:
        with kept_directory(root, "a") as second:
            assert first != second
            Path(second, "file").write_text("x")
        assert not os.path.exists(second) and os.listdir(first) == []
    with kept_directory(root, "a") as again:
        assert again == first


def test_a_directory_without_a_name_goes_with_its_build(root: str) -> None:
    with kept_directory(root, "a", lasting=False) as path:
        Path(path, "file").write_text("x")
    assert os.listdir(os.path.join(root, "drafts")) == [] and not os.path.exists(path)


def test_what_was_received_before_the_machine_was_booted_is_not_trusted(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(root, "a")
    monkeypatch.setattr(contexts, "boot_id", lambda: "another")
    with kept_directory(root, "a") as path:
        assert os.listdir(path) == []


def test_the_last_used_are_kept_in_time_number_and_size(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, recent = keep(root, "old", used=8 * 86400), keep(root, "recent", used=6 * 86400)
    collect_contexts(root)
    assert (old.exists(), recent.exists()) == (False, True)
    many = [keep(root, f"n{number}", used=number) for number in range(40)]
    collect_contexts(root)
    assert [path.exists() for path in many] == [True] * 32 + [False] * 8
    monkeypatch.setattr(contexts, "_BYTES", 3 << 20)
    large = [keep(root, f"large{number}", used=number, size=1 << 20) for number in range(5)]
    collect_contexts(root)
    assert (
        sum(path.exists() for path in large) == 2
    )  # with the smaller ones used since, there is room for two


def test_what_a_build_uses_is_never_collected(root: str) -> None:
    with kept_directory(root, "a") as path:
        assert collect_contexts(root, everything=True) == 0
        assert os.path.isdir(path)
    assert collect_contexts(root, everything=True) >= 0
    assert os.listdir(os.path.dirname(os.path.dirname(path))) == []
