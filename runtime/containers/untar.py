"""Unpack a tar beneath a directory, whatever names and links it holds.

Nothing is written outside: every component is opened beneath the top (openat2, RESOLVE_BENEATH, no links followed), a
name with `..` is refused, and a link in the way is replaced, not followed.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from typing import BinaryIO

from runtime.errors import InvalidInput
from runtime.linux.files import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_CHUNK = 1 << 20


def extract(
    archive: BinaryIO,
    top: int,
    *,
    owner: tuple[int, int] | None = (0, 0),
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Unpack into the directory `top`. Everything belongs to `owner`; None keeps the owners in the archive."""
    directories: list[tuple[list[str], tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as stream:
            for entry in stream:
                parts = _parts(rename(entry.name))
                if entry.isdir():
                    _directory(top, parts)
                    directories.append((parts, entry))
                elif parts:
                    _one(top, parts, entry, stream, rename)
                    _finish(top, parts, entry, owner)
    except tarfile.TarError as error:
        raise InvalidInput(f"this is not a tar archive: {error}") from error
    # Last and innermost first: writing into a directory changes its times, and a mode may forbid it.
    for parts, entry in reversed(directories):
        _finish(top, parts, entry, owner)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidInput(f"tar entry {name!r} leads out of the directory")
    return parts


def _open(top: int, parts: list[str], flags: int) -> int:
    path = "/".join(parts) or "."
    return openat2(top, path, flags | os.O_CLOEXEC, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def _directory(top: int, parts: list[str]) -> None:
    """mkdir -p; what is in the way and no directory is replaced."""
    for end in range(1, len(parts) + 1):
        try:
            os.close(_open(top, parts[:end], os.O_PATH | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError, OSError):
            parent = _open(top, parts[: end - 1], os.O_RDONLY | os.O_DIRECTORY)
            try:
                _clear(parent, parts[end - 1])
                os.mkdir(parts[end - 1], 0o755, dir_fd=parent)
            finally:
                os.close(parent)


def _clear(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError as error:
        raise InvalidInput(f"cannot replace the directory {name} by a file") from error


def _one(
    top: int, parts: list[str], entry: tarfile.TarInfo, stream: tarfile.TarFile, rename: Callable[[str], str]
) -> None:
    """Anything but a directory."""
    _directory(top, parts[:-1])
    parent = _open(top, parts[:-1], os.O_RDONLY | os.O_DIRECTORY)
    try:
        name = parts[-1]
        _clear(parent, name)
        if entry.isreg():
            _file(parent, name, entry, stream)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            _link(top, parent, name, _parts(rename(entry.linkname)))
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            kind = 0o020000 if entry.ischr() else 0o060000
            os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
    finally:
        os.close(parent)


def _file(parent: int, name: str, entry: tarfile.TarInfo, stream: tarfile.TarFile) -> None:
    content = stream.extractfile(entry)
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file:
        while content is not None and (data := content.read(_CHUNK)):
            file.write(data)


def _link(top: int, parent: int, name: str, target: list[str]) -> None:
    where = _open(top, target[:-1], os.O_PATH | os.O_DIRECTORY)
    try:
        os.link(target[-1], name, src_dir_fd=where, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(where)


def _finish(top: int, parts: list[str], entry: tarfile.TarInfo, owner: tuple[int, int] | None) -> None:
    """Owner, mode, time; a link only has the first."""
    if entry.islnk() or not parts:
        return
    parent = _open(top, parts[:-1], os.O_RDONLY | os.O_DIRECTORY)
    try:
        name = parts[-1]
        uid, gid = (entry.uid, entry.gid) if owner is None else owner
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if not entry.issym():
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)
