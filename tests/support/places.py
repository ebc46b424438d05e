"""File systems a store may lie on that refuse this or that; all of them are gone at the end of the block."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.linux import mounts


@contextmanager
def mounted(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> Iterator[Path]:
    mounts.mount(source, str(target), kind, flags, options)
    try:
        yield target
    finally:
        mounts.umount(str(target), mounts.MNT_DETACH)


@contextmanager
def on_overlay(directory: Path) -> Iterator[Path]:
    """An overlay, as the root of most containers is: no whiteouts can be made there, and no overlay mounted."""
    names = {each: directory / each for each in ("lower", "upper", "work", "merged")}
    for place in names.values():
        place.mkdir(parents=True)
    options = f"lowerdir={names['lower']},upperdir={names['upper']},workdir={names['work']}"
    with mounted("overlay", names["merged"], "overlay", options=options) as place:
        yield place


@contextmanager
def without_attributes(directory: Path) -> Iterator[Path]:
    """A file system without extended attributes."""
    directory.mkdir(parents=True)
    with mounted("ramfs", directory, "ramfs") as place:
        yield place


@contextmanager
def in_memory(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir(parents=True)
    with mounted("tmpfs", directory, "tmpfs", options=f"size={size}") as place:
        yield place


@contextmanager
def on_loop(directory: Path, *maker: str) -> Iterator[Path]:
    """A file system made by the command `maker` (as `mkfs.xfs -q`), in a file; in user space where the kernel knows it not."""
    kind = maker[0].removeprefix("mkfs.")
    if not _is_known(kind) and not _user_space(kind):
        pytest.skip(
            f"neither this kernel nor Debian's packages here mount {kind} (a kernel of Debian's does: tools/vm)"
        )
    if shutil.which(maker[0], path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{maker[0]} is not installed")
    directory.mkdir(parents=True)
    image = directory.with_name(f"{directory.name}.img")
    with open(image, "wb") as file:
        file.truncate(300 << 20)
    _run(*maker, str(image))
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        if _is_known(kind):
            with mounted(device, directory, kind) as place:
                yield place
        else:
            _run(_user_space(kind), device, str(directory))
            try:
                yield directory
            finally:
                _unmount(directory)
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


@contextmanager
def served(directory: Path, *command: str) -> Iterator[Path]:
    """A file system in user space; in the words of `command`, {place} is where and {beside} a directory with lower, upper, work."""
    beside = directory.with_name(f"{directory.name}-beside")
    if shutil.which(command[0]) is None:
        pytest.skip(f"Debian's package {command[0]} is not installed")
    for each in (directory, *(beside / name for name in ("lower", "upper", "work"))):
        each.mkdir(parents=True)
    _run(*(word.format(place=directory, beside=beside) for word in command))
    try:
        yield directory
    finally:
        _unmount(directory)


def _is_known(kind: str) -> bool:
    if f"\t{kind}\n" in Path("/proc/filesystems").read_text():
        return True
    subprocess.run(["modprobe", "-q", "-a", "loop", kind], check=False, capture_output=True)
    return f"\t{kind}\n" in Path("/proc/filesystems").read_text()


def _user_space(kind: str) -> str:
    return shutil.which(f"mount.{kind}-fuse", path="/usr/sbin:/sbin:/usr/bin") or ""


def _unmount(directory: Path) -> None:
    mounts.umount(str(directory), mounts.MNT_DETACH)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
