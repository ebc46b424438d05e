"""One store with a busybox base for all tests of this directory that do not need their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import make_base


@pytest.fixture(scope="session")
def base_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store in which `base:1` was built; tests share it, under contexts of their own."""
    directory = tmp_path_factory.mktemp("builder")
    make_base(directory / "store", directory / "base")
    yield directory / "store"


@pytest.fixture
def root(base_store: Path) -> Path:
    return base_store


@pytest.fixture
def fresh_root(tmp_path: Path) -> Path:
    """A store of its own, without anything in it."""
    return tmp_path / "store"
