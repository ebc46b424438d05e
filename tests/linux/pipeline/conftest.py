"""One store for all tests of a module, and whatever they deploy or leave gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pipe_command import Project, clear_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pipeline") / "store"
    try:
        yield root
    finally:
        clear_store(root)


@pytest.fixture
def project(tmp_path: Path, store: Path) -> Iterator[Project]:
    """A directory with a Dockerfile that makes a root file system of busybox, and a name of its own."""
    made = Project(tmp_path / "work", store)
    try:
        yield made
    finally:
        made.close()
