"""From an overlay upper directory to a tar: judged by GNU tar and by Python's tarfile."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from runtime.errors import HostFault
from runtime.store import Store
from runtime.store.layers import EMPTY_LAYER, LayerWriter, diff, hash_layer, write_layer
from runtime.store.layers.writer import order_key
from tests.support.store import tree

pytestmark = pytest.mark.linux


def written(directory: Path, **options: object) -> bytes:
    out = io.BytesIO()
    info = write_layer(str(directory), out, **options)  # type: ignore[arg-type]
    assert info == hash_layer(str(directory), **options)  # type: ignore[arg-type]
    assert info.size == len(out.getvalue())
    return out.getvalue()


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        return [member.name + ("/" if member.isdir() else "") for member in archive]


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def varied(root: Path) -> None:
    """One of everything a layer may hold."""
    (root / "dir" / ("n" * 120)).mkdir(parents=True)
    (root / "dir" / ("n" * 120) / ("m" * 140)).write_text("long name")
    (root / "file").write_bytes(os.urandom(70_000))
    (root / "empty").touch()
    os.chmod(root / "file", 0o4755)
    os.chown(root / "empty", 3_000_000, 4_000_000)
    (root / "link").symlink_to("/somewhere/" + "t" * 150)
    os.link(root / "file", root / "dir" / "hard")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    (root / os.fsdecode(b"not-utf8-\xff\xfe")).write_text("x")
    (root / "größe").write_text("utf-8")
    with open(root / "sparse", "wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"data")
    os.setxattr(root / "file", "user.note", b"a\0b\n")
    for path in (root / "dir", root / "file", root / "link"):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def test_gnu_tar_lists_and_unpacks_what_we_wrote(tmp_path: Path) -> None:
    source, target, archive = tmp_path / "source", tmp_path / "target", tmp_path / "layer.tar"
    source.mkdir()
    target.mkdir()
    varied(source)
    archive.write_bytes(written(source))
    listed = subprocess.run(["tar", "-tvf", archive], capture_output=True, check=True)
    assert listed.stderr == b""
    flags = ["--xattrs", "--xattrs-include=*", "--same-owner", "-p"]
    unpacked = subprocess.run(["tar", *flags, "-C", target, "-xf", archive], capture_output=True)
    assert (unpacked.returncode, unpacked.stderr) == (0, b"")
    assert tree(target) == tree(source)


def test_entries_come_depth_first_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    for name in ("b/z", "b/a", "a.txt", "a/c/d", "B"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(written(tmp_path)) == ["B", "a/", "a/c/", "a/c/d", "a.txt", "b/", "b/a", "b/z"]


def test_the_same_tree_gives_the_same_bytes_whenever_and_wherever_it_was_made(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for root, order in ((first, "abc"), (second, "cba")):
        root.mkdir()
        for name in order:
            (root / name).write_text(name)
            os.utime(root / name, (1, 1))
    assert written(first) == written(second)


def test_whiteouts_and_the_opaque_mark_come_first_in_their_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").touch()
    whiteout(tmp_path / "d" / "gone")
    os.setxattr(tmp_path / "d", "trusted.overlay.opaque", b"y")
    whiteout(tmp_path / "zz")
    data = written(tmp_path)
    assert names(data) == [".wh.zz", "d/", "d/.wh..wh..opq", "d/.wh.gone", "d/a"]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {member.size for member in archive if ".wh." in member.name} == {0}
        assert not any("trusted" in key for member in archive for key in member.pax_headers)


def test_a_directory_of_very_many_entries_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    varied(root)
    whiteout(root / "dir" / "away")
    whiteout(root / "zz")
    usual = written(root)
    monkeypatch.setattr(diff, "_LISTED", 2)
    assert written(root) == usual


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        assert written(tmp_path) == bytes(EMPTY_LAYER.size)


def test_a_directory_that_was_only_copied_up_is_left_out_when_the_lowers_are_known(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for root in (lower, upper):
        (root / "same" / "deep").mkdir(parents=True)
        (root / "mode").mkdir()
        (root / "used").mkdir()
    os.chmod(upper / "mode", 0o700)
    (upper / "used" / "new").touch()
    assert names(written(upper)) == ["mode/", "same/", "same/deep/", "used/", "used/new"]
    assert names(written(upper, lowers=[str(lower)])) == ["mode/", "used/", "used/new"]


def test_the_epoch_sets_back_later_times_only(tmp_path: Path) -> None:
    for name, time in (("early", 1_000), ("late", 3_000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    with tarfile.open(fileobj=io.BytesIO(written(tmp_path, epoch=2_000))) as archive:
        assert [member.mtime for member in archive] == [1_000, 2_000]


def test_feeding_a_writer_while_files_are_made_gives_the_digest_of_the_finished_directory(
    tmp_path: Path,
) -> None:
    varied(tmp_path)
    paths = [os.fsencode(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")]
    writer = LayerWriter()
    for path in sorted(paths, key=order_key):
        full = os.fsencode(tmp_path) + b"/" + path
        status = os.lstat(full)
        xattrs = {"user.note": b"a\0b\n"} if path in (b"file", b"dir/hard") else {}
        target = os.readlink(full) if stat.S_ISLNK(status.st_mode) else b""
        linked = writer.known_link(status)
        writer.add(path, status, target=target, xattrs=xattrs)
        if stat.S_ISREG(status.st_mode) and not linked:
            writer.write(Path(os.fsdecode(full)).read_bytes())
    assert writer.finish() == hash_layer(str(tmp_path))


def test_a_layer_of_redirects_is_refused_rather_than_written_wrong(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    os.setxattr(tmp_path / "moved", "trusted.overlay.redirect", b"/was/here")
    with pytest.raises(HostFault, match="redirect"):
        hash_layer(str(tmp_path))


def test_what_a_container_did_to_its_root_is_what_the_layer_says(store: Store) -> None:
    """The kernel makes the upper directory: remove, replace, rename, chmod, link."""
    with store.snapshots.prepare() as base:
        for path in ("etc/keep", "etc/drop", "old/a", "old/b", "moved/x", "tofile/x"):
            full = Path(base.upper, path)
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(path)
        parent = base.commit()
    with store.snapshots.prepare(parent.id) as draft:
        with draft.merged() as root:
            os.unlink(f"{root}/etc/drop")
            for name in ("a", "b"):
                os.unlink(f"{root}/old/{name}")
            os.rmdir(f"{root}/old")
            os.mkdir(f"{root}/old")
            Path(root, "old/c").write_text("new")
            subprocess.run(["mv", f"{root}/moved", f"{root}/there"], check=True)
            os.unlink(f"{root}/tofile/x")
            os.rmdir(f"{root}/tofile")
            Path(root, "tofile").write_text("now a file")
            os.link(f"{root}/old/c", f"{root}/etc/c")
        data = written(Path(draft.upper))
    assert names(data) == [
        ".wh.moved", "etc/", "etc/.wh.drop", "etc/c", "old/", "old/.wh..wh..opq", "old/c", "there/", "there/x", "tofile",
    ]  # fmt: skip
