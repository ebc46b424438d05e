"""Copy a directory of an image into a new, empty volume, as it is: owners, modes, times, attributes, hard links.

Sockets are left out: nobody can be listening. Nothing follows a link, and the source is only reached through the
descriptor it was opened with. The copy is complete or the volume is still empty: files are put together beside it and
renamed in, the root's own attributes last.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

_CHUNK = 1 << 30


def copy_up(source: int, volume: str) -> bool:
    """Copy what is in `source` into the directory `volume` unless something is there already."""
    if os.listdir(volume):
        return False
    status = os.fstat(source)
    if os.listdir(source):
        _copy_all(source, volume)
    target = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _attributes(source, target, status)
    finally:
        os.close(target)
    return True


def _copy_all(source: int, volume: str) -> None:
    import tempfile

    from runtime.store.durable import remove_tree

    staging = tempfile.mkdtemp(prefix=".copy-", dir=os.path.dirname(volume))
    try:
        target = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            links: dict[tuple[int, int], str] = {}
            _tree(source, target, "", links, target)
            where = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for name in sorted(os.listdir(target)):
                    os.rename(name, name, src_dir_fd=target, dst_dir_fd=where)
            finally:
                os.close(where)
        finally:
            os.close(target)
    finally:
        remove_tree(staging)


def _tree(source: int, target: int, path: str, links: dict[tuple[int, int], str], top: int) -> None:
    for name in sorted(os.listdir(source)):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        own = f"{path}{name}"
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            continue
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            _both(source, target, name, os.O_DIRECTORY, lambda a, b, p=own: _tree(a, b, p + "/", links, top))  # type: ignore[misc]
            continue
        known = links.get((status.st_dev, status.st_ino))
        if known is not None:
            os.link(known, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
            continue
        if status.st_nlink > 1:
            links[status.st_dev, status.st_ino] = own
        _entry(source, target, name, status)


def _entry(source: int, target: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target))
        _both(source, target, name, os.O_RDWR, _content)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)


def _both(source: int, target: int, name: str, flags: int, action: Callable[[int, int], None]) -> None:
    """Open the entry on both sides, act, and give the copy the attributes of the original."""
    common = os.O_NOFOLLOW | os.O_CLOEXEC
    original = os.open(name, os.O_RDONLY | common | (flags & os.O_DIRECTORY), dir_fd=source)
    try:
        copy = os.open(name, (flags if flags == os.O_RDWR else os.O_RDONLY | flags) | common, dir_fd=target)
        try:
            action(original, copy)
            _attributes(original, copy, os.fstat(original))
        finally:
            os.close(copy)
    finally:
        os.close(original)


def _content(source: int, target: int) -> None:
    while os.copy_file_range(source, target, _CHUNK):
        pass


def _attributes(source: int, target: int, status: os.stat_result) -> None:
    """Owner first: chown(2) clears setuid bits and capabilities."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
