"""The process that reads the small files of a layer: the same layer as without it, whatever becomes of it."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.operations import reading
from builder.operations.reading import SecondReader
from runtime.sandbox.spawner import Spawner
from runtime.store.layers import hash_layer, write_layer
from tests.linux.sandbox.test_leaks import children_of, wait_until_gone

pytestmark = pytest.mark.linux


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    with Spawner.start() as spawner:
        yield spawner


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """More files than it takes to begin, in directories of several sizes, with all that is not just a small file."""
    top = tmp_path / "layer"
    for number in range(12):
        directory = top / f"d{number:02}" / "inner"
        directory.mkdir(parents=True)
        for file in range(5 + 30 * (number % 5)):
            (directory / f"f{file}").write_bytes(os.urandom(file * 37 % 1500 + 1))
            os.utime(directory / f"f{file}", ns=(10**9 * file, 10**9 * file))
    odd = top / "d03/inner"
    (odd / "empty").touch()
    (odd / "large").write_bytes(os.urandom(100_000))
    (odd / "f1-link").symlink_to("f1")
    os.link(odd / "f2", odd / "f2-again")
    os.chmod(odd / "f3", 0o4711)
    os.chown(odd / "f4", 1000, 70_000)
    os.setxattr(odd / "f5", "user.kind", b"odd")
    os.setxattr(odd / "f6", "security.capability", b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
    os.mkfifo(odd / "f7-pipe")
    (odd / ("n" * 200)).write_text("a name that needs a header of its own")
    (top / "d04/inner" / os.fsdecode(b"f-\xff")).write_text("no text")
    return top


def told(top: Path) -> tuple[str, int]:
    """The digest and the number of entries of the tar that is really written, by ours, and read by Python's."""
    out = io.BytesIO()
    info = write_layer(str(top), out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue()), errors="surrogateescape") as archive:
        entries = len(archive.getmembers())
    return info.diff_id, entries


def test_the_layer_is_the_one_that_is_written(spawner: Spawner, layer: Path) -> None:
    with SecondReader(spawner) as beside:
        info = hash_layer(str(layer), beside=beside)
        assert beside._orders is not None, "it was large enough"
    assert (info.diff_id, info.entries) == told(layer)


def test_a_small_layer_has_no_process_made_for_it(spawner: Spawner, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"f{number}").write_text("x")
    with SecondReader(spawner) as beside:
        assert hash_layer(str(tmp_path), beside=beside) == hash_layer(str(tmp_path))
        assert beside._orders is None


def test_when_it_is_killed_we_read_ourselves(spawner: Spawner, layer: Path) -> None:
    with SecondReader(spawner) as beside:
        beside._seen = reading._ENOUGH
        assert beside.ask(os.fsencode(layer / "d04/inner"), [(b"f0", 1)])
        assert beside.answer() != ()
        (helper,) = children_of(spawner.pid)
        os.kill(helper, signal.SIGSTOP)
        questions = 0
        while beside.ask(os.fsencode(layer / "d04/inner"), [(b"f0", 1)]):
            questions += 1  # until it is too far behind
        assert questions > 10
        os.kill(helper, signal.SIGKILL)
        wait_until_gone([helper])
        assert hash_layer(str(layer), beside=beside).diff_id == told(layer)[0]


def test_one_that_dies_while_it_is_waited_for_costs_no_file(spawner: Spawner, layer: Path) -> None:
    class Dying(SecondReader):
        def answer(self):  # type: ignore[no-untyped-def]
            for helper in children_of(spawner.pid):
                os.kill(helper, signal.SIGKILL)
                wait_until_gone([helper])
            return super().answer()

    with Dying(spawner) as beside:
        assert hash_layer(str(layer), beside=beside).diff_id == told(layer)[0]


def test_it_ends_with_who_asks(spawner: Spawner, layer: Path) -> None:
    with SecondReader(spawner) as beside:
        hash_layer(str(layer), beside=beside)
        helpers = children_of(spawner.pid)
        assert helpers
    wait_until_gone(helpers)


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "attributes", "link"])
def test_what_is_not_as_it_was_listed_is_not_answered(tmp_path: Path, change: str) -> None:
    file = tmp_path / "f"
    file.write_text("four")
    match change:
        case "longer" | "shorter":
            file.write_text("fifth" if change == "longer" else "3rd")
        case "gone":
            file.unlink()
        case "attributes":
            os.setxattr(file, "user.x", b"y")
        case "link":
            file.unlink()
            (tmp_path / "other").write_text("four")
            file.symlink_to("other")
    (tmp_path / "g").write_text("good")
    assert reading.read_files(os.fsencode(tmp_path), [(b"f", 4), (b"g", 4)]) == [None, b"good"]
