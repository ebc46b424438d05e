"""Large contexts: no process of a build grows with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linux.builder.test_outputs_at_size import LIMIT, MIB, peak_of

pytestmark = pytest.mark.linux


def make_files(directory: Path, count: int, folders: int) -> Path:
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY . /srv/\n")
    for folder in range(folders):
        place = directory / f"folder{folder:02}" / "source"
        place.mkdir(parents=True)
        for number in range(count // folders):
            (place / f"file{number:06}.txt").write_text(f"{folder} {number}\n")
    return directory


@pytest.mark.parametrize(
    ("count", "folders"),
    [
        (2_000, 20),
        pytest.param(100_000, 20, marks=pytest.mark.slow),
        pytest.param(300_000, 1, marks=pytest.mark.slow),
    ],
)
def test_memory_does_not_grow_with_the_number_of_files(
    root: Path, tmp_path: Path, count: int, folders: int
) -> None:
    context = make_files(tmp_path / "context", count, folders)
    command = ("build", "-t", "many:1", str(context))
    assert peak_of(root, *command) < LIMIT  # nothing known
    assert peak_of(root, *command) < LIMIT  # all known
    (context / "folder00" / "source" / "file000000.txt").write_text("changed")
    assert peak_of(root, *command) < LIMIT  # all but one


@pytest.mark.parametrize("size", [64 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_size_of_a_file(root: Path, tmp_path: Path, size: int) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /srv/\n")
    with open(context / "large", "wb") as file:
        file.truncate(size)
    assert peak_of(root, "build", "-t", "large:1", str(context)) < LIMIT
