"""One host of their own and one store with a busybox base for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import make_base
from tests.support.networks import own_host


@pytest.fixture(scope="package", autouse=True)
def host() -> Iterator[None]:
    """A network namespace: the bridges and rules of these builds go with it, and other engines' rules are not in it."""
    with own_host():
        yield


@pytest.fixture(scope="package")
def base_store(host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which `base:1` was built; tests share it, under contexts of their own."""
    directory = tmp_path_factory.mktemp("builder")
    make_base(directory / "store", directory / "base")
    return directory / "store"


@pytest.fixture
def root(base_store: Path) -> Path:
    return base_store


@pytest.fixture
def fresh_root(tmp_path: Path) -> Path:
    """A store of its own, without anything in it."""
    return tmp_path / "store"
