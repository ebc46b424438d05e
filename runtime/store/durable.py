"""Making things so that they are whole or absent.

The rule of the store: write under a name nobody looks at, get the data to the disk, rename. What is left behind by a
kill is recognisable by its place and by the owner in its name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import HostFault

_SPACE = "free some space, for example with `pipe system prune`"
_ELSEWHERE = (
    "the file system cannot do this: put the store on another one with PIPE_ROOT, such as ext4 or xfs"
)
_HINTS = {errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EOPNOTSUPP: _ELSEWHERE}
_ALMOST_FULL = 1 << 20  # bytes
_LONG = 3000  # bytes of a path; PATH_MAX is 4096, and a name has up to 255


@contextmanager
def faults_of_the_host(action: str) -> Iterator[None]:
    """Translate an `OSError` in the block into a `HostFault` that says what was being done."""
    try:
        yield
    except OSError as error:
        raise HostFault(
            f"{action}: {error.strerror or error}", hint=_HINTS.get(error.errno or 0, "")
        ) from error


def full_hint(path: str) -> str:
    """What to do where the disk of `path` has no room left; "" where it has."""
    found = os.statvfs(path)
    full = found.f_bavail * found.f_frsize < _ALMOST_FULL or (found.f_files and not found.f_favail)
    return f"the disk of {path} is full: {_SPACE}" if full else ""


def sync_directory(path: str) -> None:
    """Get a rename in `path` to the disk (fsync(2): the file's own fsync does not cover its directory entry)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: str) -> None:
    """syncfs(2) of the file system `path` is on."""
    import ctypes

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # `CDLL` gives the interpreter lock away: this may take seconds.
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", path)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """write(2) until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Give `path` the content `data`; after a crash it has the old content or the new one."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        remove_file(temporary)
        raise
    sync_directory(directory)


def remove_file(path: str) -> bool:
    """Unlink; False when it was not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove_tree(path: str) -> int:
    """Remove what is at `path`, without following links; the bytes that were freed. Others may remove it as well."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(path)
            return _freed_by(status)
        return status.st_blocks * 512 + _remove_directory(path)
    except FileNotFoundError:
        return 0


def _remove_directory(top: str) -> int:
    """No recursion: a container may leave a tree that is deeper than our stack, and longer than a path may be."""
    freed = 0
    waiting: list[tuple[str, bool]] = [(top, False)]
    while waiting:
        directory, is_empty = waiting.pop()
        try:
            if is_empty:
                os.rmdir(directory)
                continue
            waiting.append((directory, True))
            with os.scandir(directory) as entries:
                for entry in entries:
                    freed += _remove_entry(entry, top, waiting)
        except FileNotFoundError:
            continue
    return freed


def _remove_entry(entry: os.DirEntry[str], top: str, waiting: list[tuple[str, bool]]) -> int:
    try:
        if not entry.is_dir(follow_symlinks=False):
            found = entry.stat(follow_symlinks=False)
            os.unlink(entry.path)
            return _freed_by(found)
        path = entry.path
        freed = entry.stat(follow_symlinks=False).st_blocks * 512
        if len(os.fsencode(path)) > _LONG:
            path = f"{top}/{os.urandom(8).hex()}"
            os.rename(entry.path, path)
        waiting.append((path, False))
        return freed
    except FileNotFoundError:
        return 0


def _freed_by(status: os.stat_result) -> int:
    """Unlinking one of several names frees nothing."""
    return status.st_blocks * 512 if status.st_nlink == 1 else 0
