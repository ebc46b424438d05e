"""ADD of archives that are very large, or only promise to be: memory stays where it is, the disk too, and the tree is the archive's."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.linux.builder.test_outputs_at_size import LIMIT, MIB, peak_of
from tests.support.builder import run_pipe, write_files
from tests.support.places import in_memory

pytestmark = [pytest.mark.linux, pytest.mark.timeout(1800)]
GIGABYTE = 1 << 30
END = bytes(1024)


@pytest.fixture
def store(host: None, tmp_path: Path) -> Iterator[Path]:
    """A store in memory: creating a million files on the disk of a busy machine takes as long as that disk pleases."""
    with in_memory(tmp_path / "memory", "3g") as place:
        yield place / "store"


def header(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, form: int = tarfile.USTAR_FORMAT
) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mtime = kind, size, 1_000_000_000
    return member.tobuf(form)


def context_with(directory: Path, archive: Iterable[bytes], *, packed: bool = False) -> Path:
    context = write_files(directory, {"Dockerfile": "FROM scratch\nADD a.tar /x/\n"})
    with open(context / "a.tar", "wb") as file:
        if not packed:
            file.writelines(archive)
            return context
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as stream:
            for chunk in archive:
                stream.write(chunk)
    return context


def files(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield header(f"d{number // 1000}/{number}")
    yield END


def directories(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield header(f"d{number % 1000}/{number}", tarfile.DIRTYPE)
    yield END


def replaced(count: int) -> Iterator[bytes]:
    """Directories, and files that come over them, all beside each other."""
    for kind in (tarfile.DIRTYPE, tarfile.REGTYPE):
        for number in range(count // 2):
            yield header(f"n{number}", kind)
    yield END


def zeros(size: int) -> Iterator[bytes]:
    yield header("zeros", size=size, form=tarfile.GNU_FORMAT)
    for _ in range(size // MIB):
        yield bytes(MIB)
    yield END


def headers(count: int) -> Iterator[bytes]:
    """Each file with a large extended header."""
    for number in range(count):
        data = b"900000 comment=" + b"v" * (900_000 - 16) + b"\n"
        yield header(f"h{number}", tarfile.XHDTYPE, len(data)) + data + bytes(-len(data) % 512)
        yield header(f"f{number}")
    yield END


def top_of(store: Path) -> Path:
    """What ADD made, in the snapshot."""
    (found,) = (store / "snapshots").glob("*/fs/x")
    return found


@pytest.mark.parametrize("kind", [files, directories, replaced])
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_entries(
    store: Path, tmp_path: Path, kind: type, count: int
) -> None:
    context = context_with(tmp_path / "context", kind(count))
    assert peak_of(store, "build", "-t", "many:1", str(context)) < LIMIT
    listed = subprocess.run(["find", top_of(store), "-printf", "%y %Ts\n"], check=True, capture_output=True)
    kinds = listed.stdout.split(b"\n")
    if kind is directories:
        assert kinds.count(b"d 1000000000") == count
    else:
        assert kinds.count(b"f 1000000000") == (count // 2 if kind is replaced else count)
    run_pipe(store, "rmi", "many:1")


@pytest.mark.parametrize("size", [GIGABYTE // 8, pytest.param(10 * GIGABYTE, marks=pytest.mark.slow)])
def test_zeros_cost_neither_memory_nor_disk(store: Path, tmp_path: Path, size: int) -> None:
    context = context_with(tmp_path / "context", zeros(size), packed=True)
    assert peak_of(store, "build", "-t", "zeros:1", str(context)) < LIMIT
    status = (top_of(store) / "zeros").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < MIB


@pytest.mark.parametrize("size", [GIGABYTE, pytest.param(10 * GIGABYTE, marks=pytest.mark.slow)])
def test_a_sparse_file_keeps_its_holes_however_large(store: Path, tmp_path: Path, size: int) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": "FROM scratch\nADD a.tar /x/\n"})
    with open(tmp_path / "sparse", "wb") as file:
        file.seek(size)
        file.write(b"end")
    subprocess.run(["tar", "-C", tmp_path, "-cSf", context / "a.tar", "sparse"], check=True)
    assert peak_of(store, "build", "-t", "sparse:1", str(context)) < LIMIT
    with open(top_of(store) / "sparse", "rb") as file:
        assert os.stat(file.fileno()).st_blocks * 512 < MIB
        file.seek(size)
        assert file.read() == b"end"


def test_extended_headers_do_not_add_up(store: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path / "context", headers(300), packed=True)
    assert peak_of(store, "build", "-t", "headers:1", str(context)) < LIMIT
    assert len(os.listdir(top_of(store))) == 300
