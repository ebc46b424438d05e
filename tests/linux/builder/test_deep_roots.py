"""A root of many layers, looked at without mounting it, is what the kernel shows of it."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from builder.operations.roots import Root
from runtime.store import Store

pytestmark = pytest.mark.linux


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


NAMES = ("a", "b", "c")
PATHS = ["/".join(parts) for depth in (1, 2, 3) for parts in product(NAMES, repeat=depth)]


def scribble(draw: random.Random, directory: Path, depth: int = 0) -> None:
    """A few files, whiteouts and directories, some of them opaque, in overlay form."""
    for name in NAMES:
        place, what = directory / name, draw.random()
        if what < 0.12:
            place.write_text(str(draw.random()))
        elif what < 0.2:
            os.mknod(place, stat.S_IFCHR, 0)
        elif what < 0.5 and depth < 2:
            place.mkdir()
            if draw.random() < 0.2:
                os.setxattr(place, "trusted.overlay.opaque", b"y")
            scribble(draw, place, depth + 1)


def look(path: str) -> str:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "directory" if stat.S_ISDIR(status.st_mode) else Path(path).read_text()


@pytest.mark.parametrize("seed", range(6))
def test_every_name_is_where_the_kernel_finds_it(store: Store, seed: int) -> None:
    draw = random.Random(seed)
    with store.snapshots.prepare(None) as draft:
        top = draft.commit().id
    for _ in range(40):
        with store.snapshots.prepare(top) as draft:
            scribble(draw, Path(draft.upper))
            top = draft.commit().id
        with store.snapshots.mounted(top) as merged:
            # What was found for the layers below is used for those above: look at each step, as steps do.
            root = Root(os.devnull, store.snapshots.lowers(top))
            expected = {path: look(f"{merged}/{path}") for path in PATHS}
        for path in PATHS:
            place = root.locate(path)
            assert (look(place) if place is not None else "") == expected[path], path
            assert bool(root.directories(path)) == (expected[path] == "directory"), path


def test_what_a_step_writes_itself_is_seen_at_once(store: Store) -> None:
    top = None
    for number in range(20):
        with store.snapshots.prepare(top) as draft:
            (Path(draft.upper) / "d").mkdir()
            (Path(draft.upper) / "d" / f"f{number}").touch()
            top = draft.commit().id
    with store.snapshots.prepare(top) as draft:
        root = Root(draft.upper, draft.lowers)
        assert root.locate("d/new") is None and root.locate("d/f3") is not None
        root.raise_up("d")
        Path(root.clear("d/new")).touch()
        assert root.locate("d/new") == f"{draft.upper}/d/new"
