"""Archives of ADD that mean harm, or promise more than there is (FEATURES A-75)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import stat
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.operations import roots
from builder.operations.archive import is_archive, unpack
from builder.operations.roots import Root
from builder.operations.step import Setting
from runtime.errors import InvalidInput
from runtime.linux import mounts
from runtime.store.layers import hash_layer
from tests.support.builder import write_files

GIGABYTE = 1 << 30
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
pytestmark = needs_root


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def tar_of(
    *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for each in members:
            member, data = each if isinstance(each, tuple) else (each, b"")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def added(tmp_path: Path) -> Callable[..., Path]:
    """Unpack bytes into a new root, beside which there is a file nobody may touch."""
    outside = write_files(tmp_path, {"outside": "untouched"}) / "outside"

    def add(data: bytes, directory: str = "in") -> Path:
        (tmp_path / "a.tar").write_bytes(data)
        upper = tmp_path / "root"
        upper.mkdir()
        root = Root(str(upper))
        root.ensure(directory, mtime_ns=10**18)
        try:
            unpack(str(tmp_path / "a.tar"), root, directory, Setting(), owner=None)
        finally:
            assert outside.read_text() == "untouched"
            assert sorted(os.listdir(tmp_path)) == ["a.tar", "outside", "root"]
        return upper / directory

    return add


def test_absolute_names_and_dots_stay_in_the_root(added: Callable[..., Path]) -> None:
    top = added(tar_of((entry("/abs"), b"1"), (entry("../../up"), b"2"), (entry("x/../../../y"), b"3")))
    assert sorted(path.name for path in top.iterdir()) == ["abs", "up", "y"]


def test_links_on_the_way_are_followed_inside_the_root(added: Callable[..., Path]) -> None:
    out = entry("out", tarfile.SYMTYPE, linkname="../../../../..")
    absolute = entry("abs", tarfile.SYMTYPE, linkname="/")
    top = added(tar_of(out, (entry("out/outside"), b"mine"), absolute, (entry("abs/other"), b"mine")))
    assert (top.parent / "outside").read_text() == "mine"
    assert (top.parent / "other").read_text() == "mine"


def test_an_entry_over_a_link_replaces_the_link(added: Callable[..., Path], tmp_path: Path) -> None:
    link = entry("file", tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    top = added(tar_of(link, (entry("file"), b"mine")))
    assert not (top / "file").is_symlink()
    assert (top / "file").read_text() == "mine"


@pytest.mark.parametrize("target", ["../../outside", "/outside", "missing", "dir"])
def test_a_hard_link_reaches_only_files_of_the_archive(added: Callable[..., Path], target: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot unpack a\.tar: hard link 'x' points to"):
        added(tar_of(entry("dir", tarfile.DIRTYPE), entry("x", tarfile.LNKTYPE, linkname=target)))


def test_links_in_a_circle_are_refused(added: Callable[..., Path]) -> None:
    a, b = entry("a", tarfile.SYMTYPE, linkname="b"), entry("b", tarfile.SYMTYPE, linkname="a")
    with pytest.raises(InvalidInput, match="too many levels of symbolic links"):
        added(tar_of(a, b, (entry("a/file"), b"")))


@pytest.mark.linux
def test_devices_are_devices_but_not_the_mark_of_a_deleted_file(added: Callable[..., Path]) -> None:
    top = added(tar_of(entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)))
    status = (top / "null").stat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(1, 3)


def test_a_device_that_would_hide_a_file_is_refused(added: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInput, match="0:0 cannot be kept"):
        added(tar_of(entry("gone", tarfile.CHRTYPE, devmajor=0, devminor=0)))


def test_overlay_attributes_of_an_archive_mean_nothing(added: Callable[..., Path]) -> None:
    records = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.kept": "1"}
    top = added(tar_of((entry("f", pax_headers=records), b"")))
    # A tmpfs may know none at all.
    assert set(os.listxattr(top / "f")) <= {"user.kept"}


def test_a_pax_header_without_end_is_refused_before_it_is_read(added: Callable[..., Path]) -> None:
    bomb = entry("./PaxHeaders/x", tarfile.XHDTYPE)
    bomb.size = 20 * GIGABYTE
    with pytest.raises(InvalidInput, match="tar header of 21474836480 bytes is too large"):
        added(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize(
    "records",
    [
        {"mtime": "9" * 40},
        {"uid": "-5"},
        {"uid": "99999999999"},
        {"size": "-1"},
        {"path": "a\0b"},
        {"mtime": "nan"},
    ],
)
def test_numbers_no_kernel_takes_are_refused(added: Callable[..., Path], records: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"cannot unpack a\.tar"):
        added(tar_of((entry("f", pax_headers=records), b"")))


def test_a_name_no_file_system_takes_is_the_archives_fault(added: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInput, match="File name too long"):
        added(tar_of((entry("n" * 300), b"")))


def test_a_tree_deeper_than_the_stack_of_python_is_unpacked_and_hashed(added: Callable[..., Path]) -> None:
    top = added(tar_of((entry("d/" * 1500 + "f"), b"deep")))
    try:
        assert hash_layer(str(top.parent)).entries > 1500
    finally:
        # pytest's own clean-up of old directories is recursive, and would fail some later run.
        subprocess.run(["rm", "-rf", str(top / "d")], check=True)


@pytest.mark.parametrize("cut", [100, 512, 700, 1100])
def test_an_archive_that_ends_too_early_is_refused(added: Callable[..., Path], cut: int) -> None:
    data = tar_of((entry("one"), b"x" * 600))[:cut]
    if cut == 512:
        data += b"short"
    with pytest.raises(InvalidInput, match=r"cannot unpack a\.tar"):
        added(data)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_archive_that_was_cut_off_is_still_one(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = compress(tar_of((entry("one"), os.urandom(100_000))))
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_bytes(compress(b"no tar" * 1000))
    # bzip2 gives nothing of a block before it has all of it.
    assert is_archive(str(tmp_path / "cut")) or compress is bz2.compress
    assert not is_archive(str(tmp_path / "text"))


def test_a_damaged_compression_is_refused(added: Callable[..., Path]) -> None:
    data = bytearray(gzip.compress(tar_of((entry("one"), os.urandom(1 << 20)))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InvalidInput, match=r"cannot unpack a\.tar"):
        added(bytes(data))


def _raw_xz(data: bytes, dictionary: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}]
    return lzma.compress(data, filters=filters)


def test_an_xz_archive_of_several_streams_is_read_to_the_end(added: Callable[..., Path]) -> None:
    data = tar_of((entry("one"), os.urandom(3 << 20)), (entry("two"), b"2"))
    half = len(data) // 2
    top = added(_raw_xz(data[:half], 1 << 20) + bytes(8) + _raw_xz(data[half:], 1 << 20) + bytes(4))
    assert (top / "one").stat().st_size == 3 << 20
    assert (top / "two").read_bytes() == b"2"


def test_an_xz_archive_cannot_ask_for_all_memory(added: Callable[..., Path]) -> None:
    data = bytearray(_raw_xz(tar_of((entry("one"), b"1")), 1 << 20))
    # The block header (xz file format 1.1.0, 3.1): size, flags, filter id, size of its properties, the dictionary's size.
    assert data[12:16] == b"\x02\x00\x21\x01"
    data[16] = 40  # 4 GiB - 1
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    with pytest.raises(InvalidInput, match=r"cannot unpack a\.tar: .*[Mm]emory"):
        added(bytes(data))


def _zeros(size: int) -> Iterator[bytes]:
    member = entry("zeros")
    member.size = size
    yield member.tobuf(tarfile.GNU_FORMAT)
    for _ in range(size >> 20):
        yield bytes(1 << 20)
    yield bytes(1024)


def test_zeros_cost_neither_memory_nor_disk(added: Callable[..., Path], tmp_path: Path) -> None:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as stream:
        for chunk in _zeros(GIGABYTE // 8):
            stream.write(chunk)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = (added(out.getvalue()) / "zeros").stat()
    assert status.st_size == GIGABYTE // 8
    assert status.st_blocks * 512 < 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_sparse_file_keeps_its_holes(added: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "root.source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        file.seek(8 * GIGABYTE)
        file.write(b"end")
    data = subprocess.run(
        ["tar", "-C", source, "-cSf", "-", "sparse"], check=True, capture_output=True
    ).stdout
    (source / "sparse").unlink()
    source.rmdir()
    top = added(data)
    assert (top / "sparse").stat().st_size == 8 * GIGABYTE + 3
    assert (top / "sparse").stat().st_blocks * 512 < 1 << 20
    with open(top / "sparse", "rb") as file:
        file.seek(8 * GIGABYTE)
        assert file.read() == b"end"


def test_a_file_of_zeros_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    assert not is_archive(str(tmp_path / "zeros"))
    assert not is_archive(str(tmp_path / "zeros.gz"))


def test_directories_keep_their_times_however_many_come_between(
    added: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a directory that is not remembered any more, the time is that which it was given."""
    monkeypatch.setattr(roots, "REMEMBERED", 3)
    folders = [entry(f"d{n}/e", tarfile.DIRTYPE, mtime=1000 + n) for n in range(20)]
    tops = [entry(f"d{n}", tarfile.DIRTYPE, mtime=2000 + n) for n in range(20)]
    late = [entry(f"d{n}/e/f{turn}") for turn in range(2) for n in range(20)]
    top = added(tar_of(*folders, *tops, *late, entry("d7", mtime=5)))
    assert sorted(path.name for path in (top / "d3").rglob("*")) == ["e", "f0", "f1"]
    for number in (n for n in range(20) if n != 7):
        assert (top / f"d{number}" / "e").stat().st_mtime == 1000 + number
        assert (top / f"d{number}").stat().st_mtime == 2000 + number
    assert (top / "d7").is_file()
    assert (top / "d7").stat().st_mtime == 5


def test_an_attribute_that_no_file_can_have_is_the_archives_fault(added: Callable[..., Path]) -> None:
    large = entry("large", pax_headers={"SCHILY.xattr.user.large": "v" * 70_000})
    with pytest.raises(InvalidInput, match="entry 'large': Argument list too long"):
        added(tar_of(large))


@pytest.mark.linux
def test_a_full_disk_is_the_hosts_fault_and_says_so(tmp_path: Path) -> None:
    from runtime.errors import HostFault

    small = tmp_path / "small"
    small.mkdir()
    try:
        mounts.mount("tmpfs", str(small), "tmpfs", 0, "size=1m")
    except PermissionError:
        pytest.skip("no mounts here")
    try:
        (tmp_path / "a.tar").write_bytes(tar_of((entry("big"), os.urandom(4 << 20))))
        with pytest.raises(HostFault, match="No space left on device") as caught:
            unpack(str(tmp_path / "a.tar"), Root(str(small)), "", Setting(), owner=None)
        assert "free some space" in caught.value.hint
    finally:
        mounts.umount(str(small), mounts.MNT_DETACH)


def _source_tree(top: Path) -> None:
    long_name = "l" * 140
    write_files(
        top,
        {"plain": "1", f"{long_name}/{long_name}/deep": "2", "dir/näme": "3", "empty/": "", "run.sh": "#!"},
    )
    (top / "run.sh").chmod(0o4755)
    (top / "dir").chmod(0o2750)
    os.link(top / "plain", top / "hard")
    (top / "soft").symlink_to("dir/" + "t" * 200)
    os.mkfifo(top / "fifo")
    os.chown(top / "dir" / "näme", 1234, 4321)
    os.utime(top / "plain", ns=(10**18 + 5, 10**18 + 5))


def _described(top: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(directory, name)
            status = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            key = str(path.relative_to(top))
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            found[key] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                size,
                int(status.st_mtime),
                link,
                links,
            )
    return found


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_gnu_tar_unpacks_the_same(
    added: Callable[..., Path], tmp_path: Path, form: str, compress: Callable[[bytes], bytes]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        source, theirs = Path(place, "source"), Path(place, "theirs")
        _source_tree(source)
        theirs.mkdir()
        packed = f"{place}/x.tar"
        subprocess.run(["tar", f"--format={form}", "-C", source, "-cf", packed, "."], check=True)
        subprocess.run(["tar", "-C", theirs, "--numeric-owner", "-xpf", packed], check=True)
        top = added(compress(Path(packed).read_bytes()))
        assert _described(top) == _described(theirs)


def test_a_link_to_nothing_is_the_archives_fault(added: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInput, match="entry 's': No such file"):
        added(tar_of(entry("s", tarfile.SYMTYPE, linkname="")))
