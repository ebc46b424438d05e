"""The second process of a large COPY."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.operations.copying import HELPED_FROM
from builder.operations.copyworker import ChangedWhileCopied, CopyWorker
from runtime.sandbox.spawner import Spawner
from tests.support.builder import build_text

pytestmark = pytest.mark.linux


@pytest.fixture
def worker() -> Iterator[CopyWorker]:
    with Spawner.start() as spawner:
        worker = CopyWorker(spawner)
        worker._newest_ns = 2**63  # take files that were just made
        yield worker
        worker.abandon()


def order(worker: CopyWorker, source: Path, target: Path, mode: int = 0o640, owner: int = 0) -> None:
    worker.copy(str(source), str(target), mode, owner, owner, 5 * 10**9, os.stat(source))


def test_files_are_written_as_ordered(worker: CopyWorker, tmp_path: Path) -> None:
    for number in range(300):
        source = tmp_path / f"s{number}"
        source.write_bytes(bytes([number % 256]) * number * 3)
        assert worker.takes(os.stat(source))
        order(worker, source, tmp_path / f"t{number}", 0o4751, 7)
    worker.finish()
    for number in (0, 1, 255, 299):
        target = tmp_path / f"t{number}"
        status = os.stat(target)
        assert target.read_bytes() == (tmp_path / f"s{number}").read_bytes()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_mtime) == (7, 7, 0o4751, 5)


def test_links_are_made_as_ordered(worker: CopyWorker, tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(300)]
    for directory in ("from", "to"):
        (tmp_path / directory).mkdir()
    for name in names:
        (tmp_path / "from" / name).write_text(name)
    (tmp_path / "from" / "other").touch()
    worker.link_all(str(tmp_path / "from"), str(tmp_path / "to"), names[:1])
    worker.link_all(str(tmp_path / "from"), str(tmp_path / "to"), names[1:])
    worker.finish()
    assert sorted(os.listdir(tmp_path / "to")) == sorted(names)
    for name in names:
        assert os.path.samefile(tmp_path / "from" / name, tmp_path / "to" / name)


def test_a_link_to_what_is_not_there_is_an_error_of_the_system(worker: CopyWorker, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    worker.link_all(str(tmp_path), str(tmp_path / "to"), ["missing"])
    with pytest.raises(FileNotFoundError):
        worker.finish()


def test_a_file_that_changed_since_it_was_listed_is_told(worker: CopyWorker, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("before")
    order(worker, source, tmp_path / "target")
    source.write_text("after!")
    os.utime(source, (1, 1))
    with pytest.raises(ChangedWhileCopied, match="source"):
        worker.finish()


def test_what_cannot_be_written_is_an_error_of_the_system(worker: CopyWorker, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    for _ in range(1000):  # more than the pipe holds: it is told even while orders are still being given
        try:
            order(worker, source, tmp_path / "missing" / "target")
        except BrokenPipeError:
            break
    with pytest.raises(FileNotFoundError):
        worker.finish()


def test_recent_linked_and_large_files_stay_with_us(worker: CopyWorker, tmp_path: Path) -> None:
    worker._newest_ns = 0
    source = tmp_path / "source"
    source.write_text("x")
    assert not worker.takes(os.stat(source))
    worker._newest_ns = 2**63
    os.link(source, tmp_path / "other")
    assert not worker.takes(os.stat(source))
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    assert not worker.takes(os.stat(large))


def test_a_large_copy_gives_the_layer_of_its_files(root: Path) -> None:
    """Files of the system have been quiet for long, so the helper writes them; their layer must be that of the copies."""
    from runtime.images.images import Images
    from runtime.store import Store
    from runtime.store.layers import hash_layer

    source = Path("/usr/share/zoneinfo")
    if sum(1 for _ in source.rglob("*")) < HELPED_FROM:
        pytest.skip("no large directory to copy")
    image = build_text(root, source, "FROM scratch\nCOPY --chown=3:4 . /all/\n")
    with Store.open(str(root)) as store:
        images = Images(store)
        found = images.get(image)
        snapshot = images.snapshot(found)
        assert snapshot is not None
        assert hash_layer(store.snapshots.path(snapshot)).diff_id == found.diff_ids[0]
        copied = Path(store.snapshots.path(snapshot), "all")
        for name in ("UTC", "Europe/Berlin"):
            if (source / name).is_file():
                assert (copied / name).read_bytes() == (source / name).read_bytes()


def test_links_are_made_in_order_with_copies(worker: CopyWorker, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    order(worker, source, tmp_path / "copy")
    worker.link(str(source), str(tmp_path / "link"))
    worker.finish()
    assert os.stat(tmp_path / "link").st_ino == os.stat(source).st_ino != os.stat(tmp_path / "copy").st_ino


def test_a_link_that_cannot_be_made_is_an_error_of_the_system(worker: CopyWorker, tmp_path: Path) -> None:
    worker.link(str(tmp_path / "missing"), str(tmp_path / "link"))
    with pytest.raises(FileNotFoundError):
        worker.finish()
