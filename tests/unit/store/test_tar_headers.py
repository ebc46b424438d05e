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
from runtime.store.layers import header, sparse
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


def test_the_header_of_a_plain_file_is_that_of_any_other() -> None:
    """There is a quick way for most files: it gives the same bytes, also where it gives up."""
    limits = [0, 1, 0o7777777, 0o10000000]
    for name in (b"a", b"n" * 100, b"n" * 101, b"d/" * 60 + b"n", "ü".encode(), b"\xff" * 100):
        for size in (0, 512, 0o77777777777, 0o100000000000):
            for owner in limits:
                for mode, mtime in ((0o644, 0), (0o7777, 1_700_000_000), (0, -1)):
                    quick = header.file_header(name, mode, owner, 7, size, mtime)
                    assert quick == header.header(
                        name, header.REGULAR, mode=mode, uid=owner, gid=7, size=size, mtime=mtime
                    )
                    assert quick == header.file_header(name, mode, owner, 7, size, mtime)


def test_many_owners_do_not_stay_in_memory() -> None:
    for uid in range(1000):
        header.file_header(b"name", 0o644, uid, uid, 0, 0)
    assert len(header._owners) <= 256


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
    mtime=st.integers(-(2**38), 2**38),
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


def extension(kind: bytes, data: bytes) -> bytes:
    member = tarfile.TarInfo("extension")
    member.type, member.size = kind, len(data)
    return member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


FILE = write((b"f", FakeStatus(), b""))
LARGE = [extension(b"x", pax_record(b"SCHILY.xattr.user.%d" % n, b"v" * 60_000)) for n in range(70)]


def test_what_stands_before_each_of_many_entries_may_be_large() -> None:
    data = b"".join(b"".join(LARGE[:60]) + FILE[:512] for _ in range(3)) + bytes(1024)
    assert [len(member.xattrs) for member, _ in by_us(data)] == [60, 60, 60]


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_headers_that_pile_up_before_one_entry_are_refused(kind: bytes) -> None:
    pile = LARGE if kind == b"x" else [extension(kind, b"n" * 60_000)] * 71
    with pytest.raises(InvalidInput, match=r"tar header of 42\d+ bytes is too large"):
        by_us(b"".join(pile) + FILE)


def test_what_is_said_of_all_entries_must_be_short() -> None:
    """Each of them looks at all of it."""
    small = [extension(b"g", pax_record(b"comment%d" % n, b"c" * 1000)) + FILE[:512] for n in range(60)]
    assert len(by_us(b"".join(small) + bytes(1024))) == 60
    same = [extension(b"g", pax_record(b"comment", b"c" * 1000)) + FILE[:512] for _ in range(100)]
    assert len(by_us(b"".join(same) + bytes(1024))) == 100
    with pytest.raises(InvalidInput, match="global PAX headers"):
        by_us(b"".join([*small, extension(b"g", pax_record(b"more", b"c" * 10_000))]) + FILE)


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L"])
def test_a_size_below_zero_is_refused_at_once(kind: bytes) -> None:
    member = tarfile.TarInfo("f")
    member.type = kind
    raw = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    raw[124:136] = (-512).to_bytes(12, "big", signed=True)
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:]) + 256)
    stream = io.BytesIO(bytes(raw) + bytes(8 << 20))
    with pytest.raises(InvalidInput, match="size -512"):
        list(TarReader(stream))
    assert stream.tell() <= 1 << 20


def sparse_in_data(map_text: bytes, data: bytes, real: int) -> bytes:
    text = map_text + bytes(-len(map_text) % 512)
    records = b"".join(
        pax_record(b"GNU.sparse." + key, value)
        for key, value in ((b"major", b"1"), (b"minor", b"0"), (b"name", b"s"), (b"realsize", b"%d" % real))
    )
    return extension(b"x", records) + write((b"s", FakeStatus(st_size=len(text + data)), text + data))


@pytest.mark.parametrize("form", ["data", "list"])
def test_a_sparse_map_of_very_many_pieces_takes_little_memory(form: str) -> None:
    import tracemalloc

    count = 200_000
    if form == "data":
        text = b"".join(b"%d\n1\n" % (2 * n) for n in range(count))
        raw = sparse_in_data(b"%d\n" % count + text, b"d" * count, 2 * count)
    else:
        records = pax_record(b"GNU.sparse.size", b"%d" % (2 * count)) + pax_record(
            b"GNU.sparse.map", b",".join(b"%d,1" % (2 * n) for n in range(count))
        )
        raw = extension(b"x", records) + write((b"s", FakeStatus(st_size=count), b"d" * count))
    reader = TarReader(io.BytesIO(raw))
    tracemalloc.start()
    try:
        member = next(iter(reader))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert member.pieces is not None
    assert list(sparse.pairs(member.pieces)) == [(2 * n, 1) for n in range(count)]


@pytest.mark.parametrize(
    "text",
    [
        b"9" * 5000,
        b"2000000\n" + b"0\n" * 2_000_004,
        b"2\n0\n0\n",
        b"-1\n",
        b"1\n-1\n1\n",
        b"1\n" + b"9" * 40 + b"\n1\n",
    ],
)
def test_a_sparse_map_that_cannot_be_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInput, match="invalid header in the tar"):
        by_us(sparse_in_data(text, b"", 10))
