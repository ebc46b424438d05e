"""From a tar to an overlay upper directory: hostile tars stay inside, and the kernel sees what other engines unpack."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import HostFault, InvalidInput
from runtime.store import Store
from runtime.store.layers import apply_layer, hash_layer, write_layer
from tests.linux.store.test_layer_diff import varied
from tests.support.store import Entry, directory, hardlink, make_tar, symlink, tree

pytestmark = pytest.mark.linux


def unpack(target: Path, *entries: Entry, lowers: tuple[Path, ...] = ()) -> dict[str, tuple[object, ...]]:
    target.mkdir(exist_ok=True)
    data = make_tar(*entries)
    info = apply_layer(io.BytesIO(data), str(target), lowers=[str(each) for each in lowers])
    assert info.size == len(data)
    return tree(target)


def is_whiteout(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_the_root_is_open_to_all_whatever_its_tar_says(tmp_path: Path) -> None:
    unpack(tmp_path / "target", directory(".", mode=0o700), directory("a", mode=0o700))
    assert [stat.S_IMODE(os.stat(tmp_path / "target" / name).st_mode) for name in (".", "a")] == [
        0o755,
        0o700,
    ]


# --- round trips ----------------------------------------------------------------------------------------------------


def test_what_we_wrote_unpacks_to_the_same_tree(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    varied(source)
    data = io.BytesIO()
    written = write_layer(str(source), data)
    data.seek(0)
    assert apply_layer(data, str(target)) == written
    assert tree(target) == tree(source)
    assert hash_layer(str(target)) == written


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_what_gnu_tar_wrote_unpacks_to_the_same_tree(tmp_path: Path, form: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    varied(source)
    flags = ["--xattrs", "--format=pax"] if form == "pax" else [f"--format={form}"]
    if form != "pax":
        os.removexattr(source / "file", "user.note")
    made = subprocess.run(["tar", *flags, "-C", source, "-cf", "-", "."], capture_output=True, check=True)
    apply_layer(io.BytesIO(made.stdout), str(target))
    assert tree(target) == tree(source)


@pytest.mark.parametrize("flags", [("--format=gnu",), ("--format=pax", "--sparse-version=1.0"),
                                   ("--format=pax", "--sparse-version=0.1"), ("--format=pax", "--sparse-version=0.0")],
                         ids=lambda flags: flags[-1])  # fmt: skip
def test_sparse_members_of_gnu_tar_unpack_to_the_whole_file(tmp_path: Path, flags: tuple[str, ...]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with open(source / "sparse", "wb") as file:
        for position in range(0, 9_000_000, 1_000_000):
            file.seek(position)
            file.write(b"island %d" % position)
        file.truncate(10_000_001)
    (source / "z-after").write_text("the next member")
    made = subprocess.run(
        ["tar", *flags, "--sparse", "-C", source, "-cf", "-", "."], capture_output=True, check=True
    )
    assert len(made.stdout) < 1_000_000
    apply_layer(io.BytesIO(made.stdout), str(target))
    assert tree(target) == tree(source)


# --- entries over entries (C-5) ---------------------------------------------------------------------------------------


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    unpack(
        tmp_path / "t",
        Entry("a", b"first", mode=0o600), Entry("a", b"second"),
        directory("d"), Entry("d/x", b"x"), Entry("d", b"now a file"),
        Entry("f", b"f"), directory("f", 0o700), Entry("f/y", b"y"),
        symlink("l", "a"), Entry("l", b"not through the link"),
        directory("same", 0o700), Entry("same/kept", b""), directory("same", 0o711, uid=5),
    )  # fmt: skip
    root = tmp_path / "t"
    assert (root / "a").read_bytes() == b"second"
    assert (root / "d").read_bytes() == b"now a file"
    assert (root / "f" / "y").read_bytes() == b"y"
    assert not (root / "l").is_symlink()
    assert (root / "l").read_bytes() == b"not through the link"
    assert (root / "same" / "kept").exists()
    assert (stat.S_IMODE((root / "same").stat().st_mode), (root / "same").stat().st_uid) == (0o711, 5)


def test_directories_keep_their_time_although_files_come_later(tmp_path: Path) -> None:
    unpack(tmp_path / "t", directory("d", mtime=1_000), Entry("d/f", b"", mtime=2_000))
    assert (tmp_path / "t" / "d").stat().st_mtime == 1_000


def test_directories_nobody_listed_are_made_plain(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        unpack(tmp_path / "t", Entry("a/b/c", b""))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "t" / "a" / "b").stat().st_mode) == 0o755


def test_directories_nobody_listed_take_after_the_layer_below(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "a").mkdir(parents=True)
    os.chmod(lower / "a", 0o1770)
    os.chown(lower / "a", 12, 34)
    os.utime(lower / "a", (77, 77))
    unpack(tmp_path / "t", Entry("a/new", b""), lowers=(lower,))
    status = (tmp_path / "t" / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (
        0o1770,
        12,
        34,
        77,
    )


# --- whiteouts --------------------------------------------------------------------------------------------------------


def test_whiteouts_hide_lower_layers_only_in_whatever_order_they_come(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    for path in ("file", "dir/old", "other/old", "gone"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text("lower")
    unpack(
        tmp_path / "t",
        Entry("file", b"upper"), Entry(".wh.file"),
        directory("dir"), Entry("dir/new", b""), Entry(".wh.dir"),
        Entry(".wh.other"), directory("other"), Entry("other/new", b""),
        Entry(".wh.gone"),
        lowers=(lower,),
    )  # fmt: skip
    root = tmp_path / "t"
    assert (root / "file").read_bytes() == b"upper"
    assert is_opaque(root / "dir") and (root / "dir" / "new").exists()
    assert is_opaque(root / "other") and (root / "other" / "new").exists()
    assert is_whiteout(root / "gone")


def test_the_opaque_mark_spares_this_layer_even_when_it_comes_last(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "d").mkdir(parents=True)
    (lower / "d" / "old").touch()
    unpack(tmp_path / "t", directory("d"), Entry("d/new", b""), Entry("d/.wh..wh..opq"), lowers=(lower,))
    assert is_opaque(tmp_path / "t" / "d")
    assert os.listdir(tmp_path / "t" / "d") == ["new"]


def test_an_opaque_root_hides_each_lower_entry(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "a").mkdir(parents=True)
    (lower / "b").mkdir()
    unpack(tmp_path / "t", directory("b"), Entry("new", b""), Entry(".wh..wh..opq"), lowers=(lower,))
    assert is_whiteout(tmp_path / "t" / "a")
    assert is_opaque(tmp_path / "t" / "b")


def test_the_lowest_layer_has_nothing_to_hide(tmp_path: Path) -> None:
    found = unpack(tmp_path / "t", Entry("a", b""), Entry(".wh.b"), directory("d"), Entry("d/.wh..wh..opq"))
    assert sorted(found) == ["a", "d"]
    assert not is_opaque(tmp_path / "t" / "d")


def test_what_aufs_left_means_nothing(tmp_path: Path) -> None:
    assert sorted(
        unpack(tmp_path / "t", Entry(".wh..wh.plnk", b""), Entry(".wh..wh.aufs", b""), Entry("a", b""))
    ) == ["a"]


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh.x/y"])
def test_a_whiteout_of_nothing_sensible_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="invalid whiteout"):
        unpack(tmp_path / "t", Entry(name), lowers=(tmp_path,))


# --- hard links -------------------------------------------------------------------------------------------------------


def test_a_hard_link_to_a_lower_layers_file_brings_the_file_along(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "bin").mkdir(parents=True)
    (lower / "bin" / "tool").write_text("program")
    os.chmod(lower / "bin" / "tool", 0o4711)
    os.chown(lower / "bin" / "tool", 3, 4)
    os.chmod(lower / "bin" / "tool", 0o4711)
    found = unpack(tmp_path / "t", hardlink("tool2", "bin/tool"), lowers=(lower,))
    assert found["tool2"][:3] == found["bin/tool"][:3] == ("-rws--x--x", 3, 4)
    assert found["tool2"][4] == found["bin/tool"][4] != ""
    assert (tmp_path / "t" / "tool2").read_text() == "program"


def test_a_hard_link_to_a_file_this_stack_hides_is_refused(tmp_path: Path) -> None:
    low, middle = tmp_path / "low", tmp_path / "middle"
    low.mkdir()
    middle.mkdir()
    (low / "f").touch()
    os.mknod(middle / "f", stat.S_IFCHR, 0)
    with pytest.raises(InvalidInput, match="which is no file"):
        unpack(tmp_path / "t", hardlink("x", "f"), lowers=(middle, low))


def test_links_through_lower_links_land_where_the_merged_path_leads(tmp_path: Path) -> None:
    """usr-merged bases: an entry `lib/x` belongs into `usr/lib/x` and must not hide the link."""
    lower = tmp_path / "lower"
    (lower / "usr" / "lib").mkdir(parents=True)
    (lower / "lib").symlink_to("usr/lib")
    (lower / "abs").symlink_to("/usr/lib")
    found = unpack(tmp_path / "t", Entry("lib/x", b""), Entry("abs/y", b""), lowers=(lower,))
    assert sorted(found) == ["usr", "usr/lib", "usr/lib/x", "usr/lib/y"]


def test_a_hard_link_does_not_bring_back_what_this_layer_deletes(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "f").touch()
    with pytest.raises(InvalidInput, match="which is no file"):
        unpack(tmp_path / "t", Entry(".wh.f"), hardlink("x", "f"), lowers=(lower,))
    with pytest.raises(InvalidInput, match="which is no file"):
        unpack(tmp_path / "u", directory("d"), hardlink("x", "d"))


def test_a_directory_in_place_of_this_layers_link_does_not_show_the_lower_one(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "d").mkdir(parents=True)
    (lower / "d" / "old").touch()
    unpack(tmp_path / "t", symlink("d", "elsewhere"), directory("d"), Entry("d/new", b""), lowers=(lower,))
    assert is_opaque(tmp_path / "t" / "d")


def test_a_directory_in_place_of_a_lower_link_gets_what_comes_after_it(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "usr" / "lib").mkdir(parents=True)
    (lower / "lib").symlink_to("usr/lib")
    found = unpack(
        tmp_path / "t", Entry("lib/x", b""), directory("lib"), Entry("lib/y", b""), lowers=(lower,)
    )
    assert sorted(found) == ["lib", "lib/y", "usr", "usr/lib", "usr/lib/x"]


# --- hostile tars -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/../escape", "a/.."])
def test_names_that_lead_upwards_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="outside of its root"):
        unpack(tmp_path / "t", Entry(name, b"x"))
    assert os.listdir(tmp_path) == ["t"]


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../..{outside}", "../outside"])
def test_files_are_never_written_through_a_link_out_of_the_root(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    unpack(
        tmp_path / "t",
        symlink("door", target.format(outside=outside)),
        Entry("door/victim", b"overwritten"), Entry("door/new", b""), directory("door/made"),
        hardlink("copy", "door/new"),
    )  # fmt: skip
    assert sorted(os.listdir(outside)) == ["victim"]
    assert (outside / "victim").read_text() == "untouched"


def test_a_hard_link_never_reaches_a_file_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(InvalidInput):
        unpack(tmp_path / "t", symlink("door", str(tmp_path)), hardlink("copy", "door/secret"))
    with pytest.raises(InvalidInput):
        unpack(tmp_path / "u", hardlink("copy", "../secret"))


def test_a_chain_of_links_swapped_under_a_known_directory_stays_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    unpack(
        tmp_path / "t",
        directory("d"), Entry("d/a", b""),
        symlink("d", str(outside)), Entry("d/evil", b"x"),
    )  # fmt: skip
    assert os.listdir(outside) == []


def test_links_that_go_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="too many links"):
        unpack(tmp_path / "t", symlink("a", "b"), symlink("b", "a"), Entry("a/x", b""))


def test_attributes_overlayfs_would_believe_are_ignored(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "secret").mkdir(parents=True)
    pax = {
        "SCHILY.xattr.trusted.overlay.redirect": "/secret",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.fine": "yes",
    }
    unpack(tmp_path / "t", directory("d", pax=pax), lowers=(lower,))
    assert os.listxattr(tmp_path / "t" / "d") == ["user.fine"]


def test_entries_below_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no directory"):
        unpack(tmp_path / "t", Entry("f", b""), Entry("f/x", b""))


def test_a_device_that_would_be_a_whiteout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0/0"):
        unpack(tmp_path / "t", Entry("x", type=tarfile.CHRTYPE, device=(0, 0)))


def test_a_layer_over_its_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="larger than 4096 bytes"):
        apply_layer(io.BytesIO(make_tar(Entry("f", bytes(10_000)))), str(tmp_path), limit=4096)


@pytest.mark.parametrize(
    "pax",
    [
        {"uid": str(2**32 - 1)}, {"gid": "-1"}, {"mtime": "1e99"}, {"mtime": str(2**70)}, {"size": "-5"}, {"size": str(2**70)},
        {"path": "a\0b"}, {"SCHILY.xattr.user.a\0b": "x"}, {"GNU.sparse.map": "0,5,2", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,99999999999", "GNU.sparse.size": "5"}, {"GNU.sparse.major": "1"},
    ],
    ids=lambda pax: "-".join(pax),
)  # fmt: skip
def test_numbers_and_names_the_kernel_has_no_room_for_are_refused(
    tmp_path: Path, pax: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        unpack(tmp_path / "t", Entry("f", b"hello", pax=pax))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 11 * 512), st.integers(0, 255)), max_size=8), fix=st.booleans()
)
def test_a_damaged_tar_is_refused_or_unpacked_inside(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], fix: bool
) -> None:
    """Whatever bytes are changed, with right checksums or not: one of our errors, and nothing outside."""
    top = tmp_path_factory.mktemp("damaged")
    data = bytearray(
        make_tar(
            directory("d"), Entry("d/f", b"hello" * 20), symlink("l", "d/f"), hardlink("h", "d/f"),
            Entry("x", b"y", pax={"SCHILY.xattr.user.a": "b", "uid": "5"}), Entry("d/.wh.z"),
        )
    )  # fmt: skip
    for position, value in changes:
        data[position % len(data)] = value
    if fix:
        for at in range(0, len(data), 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b"        "
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    target = top / "t"
    target.mkdir()
    try:
        apply_layer(io.BytesIO(bytes(data)), str(target), lowers=[str(top / "t")] if len(changes) % 2 else ())
    except (InvalidInput, HostFault):
        pass
    assert os.listdir(top) == ["t"]
    shutil.rmtree(top)


# --- judged by another engine -----------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_a_stack_of_layers_merges_to_what_umoci_unpacks(store: Store, tmp_path: Path) -> None:
    from runtime.images import Images
    from tests.support.store import make_image

    image = make_image(
        make_tar(
            directory("./"), directory("etc"), Entry("etc/a", b"1"), Entry("etc/b", b"2"), directory("var/old", mtime=5),
            Entry("var/old/x", b"x"), symlink("lib", "usr/lib"), directory("usr/lib"), Entry("usr/lib/so", b"elf", mode=0o755),
        ),
        make_tar(
            Entry("etc/.wh.a"), directory("var/old"), Entry("var/old/.wh..wh..opq"), Entry("var/old/y", b"y"),
            hardlink("so-again", "usr/lib/so"), Entry("etc/b", b"22", mode=0o600, uid=7),
        ),
        make_tar(Entry(".wh.lib"), directory("lib", 0o700), Entry("lib/z", b"z"), Entry(".wh.so-again")),
    )  # fmt: skip
    layout = tmp_path / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    for blob in (image.config, *image.blobs, image.manifest.raw):
        (layout / "blobs" / "sha256" / digest_hex(blob)).write_bytes(blob)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = image.manifest.descriptor.to_json() | {"annotations": {"org.opencontainers.image.ref.name": "it"}}
    import json

    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:it", tmp_path / "bundle"], check=True, capture_output=True
    )
    packed = subprocess.run(["tar", "-C", layout, "-cf", "-", "."], check=True, capture_output=True)
    images = Images(store)
    (loaded,) = images.load(io.BytesIO(packed.stdout))
    top = images.snapshot(loaded)
    assert top is not None
    with store.snapshots.mounted(top) as merged:
        assert untimed(tree(merged)) == untimed(tree(tmp_path / "bundle" / "rootfs"))


def untimed(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Directories that no layer lists have no time of their own; umoci and hard links count names of their own."""
    return {
        path: (*entry[:4], entry[5], None if str(entry[0]).startswith("d") else entry[6])
        for path, entry in found.items()
    }


def digest_hex(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# --- layers that mean to take for ever ------------------------------------------------------------------------------


def replaced(count: int) -> list[Entry]:
    """Directories, and then a file in place of each."""
    names = [f"n{number}" for number in range(count)]
    return [*(directory(f"{name}/in") for name in names), *(Entry(name) for name in names)]


def opaque(count: int) -> list[Entry]:
    """Opaque directories, and directories that may be in lower layers."""
    marks = [Entry(f"o{number}/.wh..wh..opq") for number in range(count)]
    return [*marks, *(directory(f"d{number}") for number in range(count))]


@pytest.mark.parametrize("kind", [replaced, opaque])
def test_a_layer_takes_as_long_as_it_is(tmp_path: Path, kind: type) -> None:
    taken = []
    lower = tmp_path / "lower"
    lower.mkdir()
    for count in (2_000, 16_000):
        target, data = tmp_path / str(count), make_tar(*kind(count))
        target.mkdir()
        begin = time.process_time()
        apply_layer(io.BytesIO(data), str(target), lowers=[str(lower)])
        taken.append(time.process_time() - begin)
        assert len(os.listdir(target)) == count * (1 if kind is replaced else 2)
    assert taken[1] < taken[0] * 8 * 3  # as the square of it, it would be 64 times


def test_times_of_directories_go_with_them_and_no_further(tmp_path: Path) -> None:
    made = [directory("a", mtime=5), directory("a/b", mtime=6), directory("ab", mtime=7)]
    unpack(tmp_path / "t", *made, Entry("a", mtime=8), directory("c/d", mtime=9), Entry("ab/f"))
    assert [os.stat(tmp_path / "t" / name).st_mtime for name in ("a", "ab", "c/d")] == [8, 7, 9]
