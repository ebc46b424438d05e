"""Volumes: made once, kept while used, filled from an image as the image has it (D-32, K19)."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import Conflict, InvalidInput, NotFound
from runtime.store.store import Store
from runtime.volumes import Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    with Store.open(str(tmp_path / "store")) as store:
        yield Volumes(store)


def fill(volumes: Volumes, name: str, source: Path) -> bool:
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return volumes.copy_up(name, descriptor)
    finally:
        os.close(descriptor)


def test_creating_twice_gives_the_same_volume(volumes: Volumes) -> None:
    first = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data") == first
    assert os.path.isdir(first.path)
    assert [volume.name for volume in volumes.list()] == ["data"]


def test_two_threads_making_one_volume_agree(volumes: Volumes) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(volumes.create("same").name)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["same"] * 8


def test_a_volume_in_use_stays(volumes: Volumes) -> None:
    volumes.create("data")
    volumes.use("c" * 64, ["data"])
    with pytest.raises(Conflict, match="in use by cccccccccccc"):
        volumes.remove("data")
    volumes.leave("c" * 64)
    volumes.remove("data")
    assert volumes.find("data") is None
    assert not os.path.exists(volumes.path("data"))


def test_a_container_takes_its_anonymous_volumes_along_and_leaves_named_ones(volumes: Volumes) -> None:
    anonymous, named = volumes.create(), volumes.create("named")
    assert anonymous.anonymous
    assert len(anonymous.name) == 64
    volumes.use("c1", [anonymous.name, named.name])
    volumes.leave("c1", remove_anonymous=True)
    assert [volume.name for volume in volumes.list()] == ["named"]


def test_a_shared_anonymous_volume_goes_with_its_last_user(volumes: Volumes) -> None:
    volume = volumes.create()
    volumes.use("c1", [volume.name])
    volumes.use("c2", [volume.name])
    volumes.leave("c1", remove_anonymous=True)
    assert volumes.find(volume.name) is not None
    volumes.leave("c2", remove_anonymous=True)
    assert volumes.find(volume.name) is None


def test_prune_takes_unused_anonymous_ones_and_with_everything_named_ones(volumes: Volumes) -> None:
    used, unused = volumes.create(), volumes.create()
    volumes.create("named")
    volumes.use("c", [used.name])
    Path(unused.path, "file").write_bytes(b"x" * 10_000)
    removed, freed = volumes.prune()
    assert removed == (unused.name,)
    assert freed >= 10_000
    assert volumes.prune(everything=True)[0] == ("named",)


def test_bad_names_and_options_are_refused(volumes: Volumes) -> None:
    for name in ("../x", "a/b", ".hidden", "x" * 300):
        with pytest.raises(InvalidInput, match="invalid volume name"):
            volumes.create(name)
    with pytest.raises(InvalidInput, match="unknown option 'tpye'"):
        volumes.create("v", options={"tpye": "nfs"})
    with pytest.raises(NotFound):
        volumes.get("nothing")
    assert volumes.remove("nothing", force=True) == 0


def test_copy_up_keeps_owners_modes_times_links_and_attributes(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "image"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"content")
    os.link(source / "sub" / "file", source / "twin")
    os.symlink("/etc/passwd", source / "link")
    os.mkfifo(source / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    os.chmod(source / "sub" / "file", 0o4711)
    os.setxattr(source / "sub", "user.note", b"yes") if _has_user_attributes(source) else None
    os.chmod(source / "sub", 0o1777)
    os.utime(source / "sub", (1000, 2000))
    os.chmod(source, 0o750)
    volume = volumes.create("data")
    assert fill(volumes, "data", source)
    target = Path(volume.path)
    assert (target / "sub" / "file").read_bytes() == b"content"
    assert stat.S_IMODE((target / "sub" / "file").stat().st_mode) == 0o4711
    assert (target / "sub" / "file").stat().st_ino == (target / "twin").stat().st_ino
    assert os.readlink(target / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
    assert not (target / "socket").exists()
    assert ((target / "sub").stat().st_mtime, stat.S_IMODE((target / "sub").stat().st_mode)) == (2000, 0o1777)
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    assert os.listdir(target.parent) == ["_data"]
    if _has_user_attributes(source):
        assert os.getxattr(target / "sub", "user.note") == b"yes"


def _has_user_attributes(path: Path) -> bool:
    try:
        os.setxattr(path, "user.probe", b"")
        os.removexattr(path, "user.probe")
    except OSError:
        return False
    return True


def test_a_volume_with_content_is_left_alone(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.mkdir()
    (source / "new").touch()
    volume = volumes.create("data")
    Path(volume.path, "old").touch()
    assert not fill(volumes, "data", source)
    assert os.listdir(volume.path) == ["old"]


@pytest.mark.skipif(os.geteuid() != 0, reason="owners can only be set by root")
def test_copy_up_keeps_foreign_owners(volumes: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.mkdir()
    (source / "file").touch()
    os.chown(source / "file", 999, 998)
    os.chown(source, 70, 71)
    volume = volumes.create("data")
    fill(volumes, "data", source)
    status = os.stat(volume.path)
    assert (status.st_uid, status.st_gid) == (70, 71)
    status = os.stat(os.path.join(volume.path, "file"))
    assert (status.st_uid, status.st_gid) == (999, 998)
