"""eStargz layers, read back with nothing of ours: gzip, zlib, tarfile, json and GNU tar."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidInput, Unsupported
from runtime.store.layers.estargz import EStargz, footer, table_digest, table_offset

CHUNK = 4 << 20
LONG = "d/" + "n" * 150


def tar_of(directory: Path) -> bytes:
    command = [
        "tar",
        "--format=posix",
        "--xattrs",
        "--sort=name",
        "--pax-option=delete=atime,delete=ctime",
        "-C",
    ]
    return subprocess.run([*command, str(directory), "-cf", "-", "."], check=True, capture_output=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "d").mkdir(parents=True)
    (top / "d/small").write_text("hello\n")
    (top / "d/empty").touch()
    (top / LONG).write_text("a name for which ustar has no room")
    (top / "big").write_bytes(os.urandom(2 * CHUNK) + b"the rest")
    (top / "exact").write_bytes(bytes(CHUNK))
    (top / "link").symlink_to("d/small")
    os.link(top / "d/small", top / "zhard")
    os.mkfifo(top / "fifo")
    os.setxattr(top / "d/small", "user.note", b"\x00\xff")
    os.utime(top / "d/small", ns=(0, 1_500_000_000_400_000_000))
    os.utime(top / "d/empty", (0, 0))
    return top


def packed(
    tar: bytes, scratch: Path, piece: int = 100_000, level: int | None = None
) -> tuple[bytes, EStargz]:
    out = io.BytesIO()
    with EStargz(out, str(scratch), level) as stream:
        for at in range(0, len(tar), piece):
            stream.write(tar[at : at + piece])
    return out.getvalue(), stream


def table_of(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """The table of contents as a reader of the format finds it: by the footer, then from its gzip member alone."""
    assert blob[-51:][12:14] == b"SG" and blob[-51:].endswith(footer(0)[-13:])
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob[int(blob[-35:-19], 16) :]))) as archive:
        (member,) = archive.getmembers()
        file = archive.extractfile(member)
        assert member.name == "stargz.index.json" and file is not None
        raw = file.read()
    return json.loads(raw), raw


def data_at(blob: bytes, offset: int, size: int) -> bytes:
    """What a reader that fetches only from this offset on gets."""
    member = zlib.decompressobj(31)
    data = member.decompress(blob[offset:])
    assert member.eof
    return data[:size]


def test_whoever_does_not_know_the_format_unpacks_the_tar_that_was(tree: Path, tmp_path: Path) -> None:
    tar = tar_of(tree)
    blob, made = packed(tar, tmp_path)
    whole = gzip.decompress(blob)
    assert whole.startswith(tar)
    assert made.diff_id == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert made.size == len(whole)
    listed = subprocess.run(["tar", "-tzf", "-"], input=blob, check=True, capture_output=True).stdout
    assert listed == subprocess.run(["tar", "-tf", "-"], input=tar, check=True, capture_output=True).stdout


def test_the_table_says_of_each_entry_what_the_tar_says(tree: Path, tmp_path: Path) -> None:
    tar = tar_of(tree)
    table, _ = table_of(packed(tar, tmp_path)[0])
    assert table["version"] == 1
    entries = [each for each in table["entries"] if each["type"] != "chunk"]
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
    assert [each["name"].rstrip("/") for each in entries] == [each.name for each in members]
    kinds = {b"0": "reg", b"1": "hardlink", b"2": "symlink", b"5": "dir", b"6": "fifo"}
    for entry, member in zip(entries, members, strict=True):
        assert entry["type"] == kinds[member.type]
        assert entry["mode"] == member.mode
        assert (entry.get("uid", 0), entry.get("gid", 0)) == (member.uid, member.gid)
        assert entry.get("size", 0) == (member.size if member.isreg() else 0)
        assert entry.get("linkName", "") == member.linkname
    named = {each["name"]: each for each in entries}
    assert named["./d/small"]["modtime"] == "2017-07-14T02:40:00Z"
    assert "modtime" not in named["./d/empty"]
    assert base64.b64decode(named["./d/small"]["xattrs"]["user.note"]) == b"\x00\xff"


def test_every_chunk_of_every_file_can_be_fetched_by_itself_and_checked(tree: Path, tmp_path: Path) -> None:
    blob, _ = packed(tar_of(tree), tmp_path)
    table, _ = table_of(blob)
    sizes = {each["name"]: each["size"] for each in table["entries"] if each.get("size")}
    whole: dict[str, bytes] = {}
    for each in table["entries"]:
        if each["type"] in ("reg", "chunk") and each["name"] in sizes:
            start = each.get("chunkOffset", 0)
            data = data_at(blob, each["offset"], each.get("chunkSize", sizes[each["name"]] - start))
            assert each["chunkDigest"] == "sha256:" + hashlib.sha256(data).hexdigest()
            whole[each["name"]] = whole.get(each["name"], b"") + data
    assert {name: (tree / name).read_bytes() for name in whole} == whole
    assert len(whole) == 4
    digests = {each["name"]: each["digest"] for each in table["entries"] if each["type"] == "reg"}
    assert digests["./big"] == "sha256:" + hashlib.sha256((tree / "big").read_bytes()).hexdigest()
    assert digests["./d/empty"] == "sha256:" + hashlib.sha256(b"").hexdigest()
    assert [each.get("chunkOffset", 0) for each in table["entries"] if each["name"] == "./big"] == [
        0,
        CHUNK,
        2 * CHUNK,
    ]
    assert "chunkSize" not in next(each for each in table["entries"] if each["name"] == "./exact")


def test_the_digest_of_the_table_is_told_and_found_again(tree: Path, tmp_path: Path) -> None:
    blob, made = packed(tar_of(tree), tmp_path)
    _, raw = table_of(blob)
    assert made.toc_digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    offset = table_offset(blob)
    assert offset is not None
    assert table_digest(io.BytesIO(blob[offset:])) == made.toc_digest
    assert table_offset(gzip.compress(b"something else" * 10)) is None


@pytest.mark.parametrize("level", [None, 1, 9])
def test_the_bytes_do_not_depend_on_the_pieces_that_come_in(
    tree: Path, tmp_path: Path, level: int | None
) -> None:
    tar = tar_of(tree)
    assert len({packed(tar, tmp_path, piece, level)[0] for piece in (511, 512, 1 << 20, len(tar))}) == 1


def test_a_layer_without_entries_has_a_table_without_entries(tmp_path: Path) -> None:
    blob, _ = packed(bytes(1024), tmp_path)
    assert table_of(blob)[0] == {"version": 1, "entries": []}
    assert gzip.decompress(blob).startswith(bytes(1024))


def test_a_long_row_of_entries_without_data_is_whole(tmp_path: Path) -> None:
    """Their headers fill several blocks of one gzip member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(5000):
            member = tarfile.TarInfo(f"link{number}")
            member.type, member.linkname = tarfile.SYMTYPE, f"target{number}"
            archive.addfile(member)
    blob, _ = packed(out.getvalue(), tmp_path)
    assert gzip.decompress(blob).startswith(out.getvalue())
    assert [each["linkName"] for each in table_of(blob)[0]["entries"]] == [f"target{n}" for n in range(5000)]


@pytest.mark.parametrize(
    ("name", "kind"), [("stargz.index.json", tarfile.REGTYPE), ("./stargz.index.json", tarfile.REGTYPE)]
)
def test_a_layer_that_has_a_table_of_its_own_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(Unsupported, match="has a file stargz"):
        packed(out.getvalue(), tmp_path)


def test_a_tar_that_is_cut_off_is_noticed(tree: Path, tmp_path: Path) -> None:
    tar = tar_of(tree)
    for end in (100, 512 + 100, len(tar) // 2 + 7):
        with pytest.raises(InvalidInput):
            packed(tar[:end], tmp_path)
    assert not [each for each in tmp_path.iterdir() if each != tree]


def test_a_large_layer_needs_little_memory(tmp_path: Path) -> None:
    """20,000 files and one of 64 MiB."""
    header = bytearray()
    for number in range(20_000):
        member = tarfile.TarInfo(f"some/directory/with/a/name/file{number:06}")
        member.size = 5
        header += member.tobuf() + b"12345" + bytes(507)
    member = tarfile.TarInfo("big")
    member.size = 64 << 20

    class Nowhere:
        def write(self, data: bytes) -> int:
            return len(data)

    tracemalloc.start()
    try:
        with EStargz(Nowhere(), str(tmp_path)) as stream:
            for at in range(0, len(header), 1 << 20):
                stream.write(bytes(header[at : at + (1 << 20)]))
            stream.write(member.tobuf())
            for _ in range(64):
                stream.write(os.urandom(1 << 20))
            stream.write(bytes(1024))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
