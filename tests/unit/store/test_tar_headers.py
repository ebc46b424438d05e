"""What we write as tar headers is what Python's tarfile and our own reader read."""

from __future__ import annotations

import io
import stat
import tarfile
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidInput
from runtime.store.layers import header
from runtime.store.layers.reader import Member, TarReader
from runtime.store.layers.writer import EMPTY_LAYER, LayerWriter, order_key


@dataclass
class FakeStatus:
    st_mode: int = stat.S_IFREG | 0o644
    st_uid: int = 0
    st_gid: int = 0
    st_size: int = 0
    st_mtime_ns: int = 1_700_000_000_123_456_789
    st_nlink: int = 1
    st_ino: int = 1
    st_dev: int = 1
    st_rdev: int = 0


def write(*entries: tuple[bytes, FakeStatus, bytes], epoch: int | None = None) -> bytes:
    out = io.BytesIO()
    writer = LayerWriter(out, epoch=epoch)  # type: ignore[arg-type]
    for path, status, data in entries:
        writer.add(path, status, data)
    info = writer.finish()
    assert info.size == len(out.getvalue())
    return out.getvalue()


def by_python(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        return archive.getmembers()


def by_us(data: bytes) -> list[tuple[Member, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(member, b"".join(reader.data())) for member in reader]


NAMES = st.lists(
    st.binary(min_size=1, max_size=120).filter(lambda b: not {0, 47} & set(b) and b not in (b".", b"..")),
    min_size=1,
    max_size=6,
).map(b"/".join)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    name=NAMES.filter(lambda name: not name.startswith(b".wh.")),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mode=st.integers(0, 0o7777),
    mtime=st.integers(-(2**33), 2**33),
    data=st.binary(max_size=1500),
)
def test_a_file_with_any_name_owner_and_time_is_read_back(
    name: bytes, uid: int, gid: int, mode: int, mtime: int, data: bytes
) -> None:
    status = FakeStatus(stat.S_IFREG | mode, uid, gid, len(data), mtime * 1_000_000_000)
    raw = write((name, status, data))
    ((member, content),) = by_us(raw)
    assert (member.name, member.uid, member.gid, member.mode) == (name, uid, gid, mode)
    assert (member.mtime_ns, content) == (mtime * 1_000_000_000, data)
    (seen,) = by_python(raw)
    assert (seen.name.encode("utf-8", "surrogateescape"), seen.uid, seen.gid, int(seen.mtime)) == (
        name,
        uid,
        gid,
        mtime,
    )


def test_an_extended_header_is_written_only_when_it_is_needed() -> None:
    plain = write((b"a" * 100, FakeStatus(), b""))
    split = write((b"d" * 150 + b"/" + b"n" * 100, FakeStatus(), b""))
    long = write((b"n" * 101, FakeStatus(), b""))
    assert [len(each) for each in (plain, split, long)] == [512 * 3, 512 * 3, 512 * 5]
    assert by_python(split)[0].name == "d" * 150 + "/" + "n" * 100
    assert by_python(long)[0].name == "n" * 101


def test_a_size_beyond_octal_is_told_by_pax() -> None:
    raw = header.header(b"big", header.REGULAR, mode=0o644, size=9 << 30)
    assert b" size=9663676416\n" in raw
    reader = TarReader(io.BytesIO(raw))
    assert next(iter(reader)).size == 9 << 30


def test_extended_attributes_are_read_back_byte_for_byte() -> None:
    value = bytes(range(256))
    out = io.BytesIO()
    writer = LayerWriter(out)  # type: ignore[arg-type]
    writer.add(b"f", FakeStatus(), b"", xattrs={"user.x": value, "security.capability": b"\1\0\n"})
    writer.finish()
    ((member, _),) = by_us(out.getvalue())
    assert member.xattrs == {"user.x": value, "security.capability": b"\1\0\n"}


def test_sub_seconds_are_cut_off_and_later_times_clamped_to_the_epoch() -> None:
    late = FakeStatus(st_mtime_ns=2_000_000_000_900_000_000)
    early = FakeStatus(st_mtime_ns=1_500_000_000_900_000_000)
    raw = write((b"a", late, b""), (b"b", early, b""), epoch=1_600_000_000)
    assert [member.mtime_ns for member, _ in by_us(raw)] == [1_600_000_000 * 10**9, 1_500_000_000 * 10**9]
    assert by_python(write((b"a", late, b"")))[0].mtime == 2_000_000_000


def test_the_second_name_of_a_file_is_a_link_and_a_socket_is_left_out() -> None:
    linked = FakeStatus(st_nlink=2, st_ino=7)
    raw = write((b"a", linked, b"data"), (b"b", linked, b"data"), (b"s", FakeStatus(stat.S_IFSOCK), b""))
    assert [(m.name, m.type, m.linkname) for m in by_python(raw)] == [
        ("a", tarfile.REGTYPE, ""),
        ("b", tarfile.LNKTYPE, "a"),
    ]


def test_the_empty_layer_is_two_blocks_of_zeros() -> None:
    assert EMPTY_LAYER.diff_id == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert write() == bytes(1024)


def test_a_file_that_is_shorter_than_announced_is_an_error() -> None:
    writer = LayerWriter()
    writer.add(b"f", FakeStatus(st_size=10))
    writer.write(b"12345")
    with pytest.raises(ValueError, match="5 bytes of the entry before are missing"):
        writer.add(b"g", FakeStatus(), b"")


def test_whiteouts_sort_before_the_other_entries_of_their_directory() -> None:
    paths = [b"a/b", b"a/.wh.z", b"a", b"a.txt", b"a/.wh..wh..opq", b"a/a/x", b"a/a"]
    assert sorted(paths, key=order_key) == [
        b"a", b"a/.wh..wh..opq", b"a/.wh.z", b"a/a", b"a/a/x", b"a/b", b"a.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format_are_read(kind: int) -> None:
    out = io.BytesIO()
    long = "d" * 90 + "/" + "e" * 90
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        info = tarfile.TarInfo(long)
        info.size, info.uid, info.mtime = 3, 1000, 1_234_567_890
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * (90 if kind == tarfile.USTAR_FORMAT else 190)
        archive.addfile(link)
    (file, content), (other, _) = by_us(out.getvalue())
    assert (file.name, content, file.uid, file.mtime_ns) == (
        long.encode(),
        b"abc",
        1000,
        1_234_567_890 * 10**9,
    )
    assert other.link == link.linkname.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\1" * 512, "not a tar"),
        (b"x" * 100, "middle of a header"),
        (write((b"f", FakeStatus(), b"12345"))[:514], "middle of a file"),
    ],
    ids=["noise", "short", "cut"],
)
def test_what_is_no_tar_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        by_us(data)


def test_what_follows_the_end_mark_counts_for_the_digest() -> None:
    import hashlib

    raw = write((b"f", FakeStatus(), b"x")) + bytes(10240)
    reader = TarReader(io.BytesIO(raw))
    assert [member.name for member in reader] == [b"f"]
    assert reader.finish() == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert reader.size == len(raw)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    NAMES,
    st.integers(0, 0o7777),
    st.sampled_from([0, 1000, 0o7777777, 0o10000000, 2**32 - 2]),
    st.sampled_from([0, 50, 0o10000000]),
    st.sampled_from([0, 1, 511, 4096, 0o77777777777, 0o100000000000]),
    st.sampled_from([0, 1_700_000_000, -1]),
)
def test_the_quick_header_of_a_regular_file_is_the_general_one(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int
) -> None:
    quick = header.regular(name, mode, uid, gid, size, mtime)
    assert quick == header.header(name, header.REGULAR, mode=mode, uid=uid, gid=gid, size=size, mtime=mtime)
    if len(quick) == header.BLOCK:
        read = tarfile.TarInfo.frombuf(quick, "utf-8", "surrogateescape")
        assert (read.mode, read.uid, read.gid, read.size, read.mtime) == (mode, uid, gid, size, mtime)
