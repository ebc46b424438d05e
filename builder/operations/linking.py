"""Put a finished snapshot's files into a draft as hard links: same inodes, no data moved."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from builder.operations.roots import copy_xattrs
from runtime.store.hiding import Form, form_of


def link_tree(source: str, target: str) -> None:
    """`target` (an empty upper directory) gets everything `source` has, in the same form."""
    _link(source, target, form_of(source))


def _link(source: str, target: str, form: Form) -> None:
    with os.scandir(source) as listing:
        entries = list(listing)
    for entry in entries:
        place = f"{target}/{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            link_or_copy(entry.path, place)
            continue
        os.mkdir(place, 0o700)
        _link(entry.path, place, form)
        _like(entry.path, place, form)


def _like(source: str, target: str, form: Form) -> None:
    status = os.stat(source)
    copy_xattrs(source, target)
    if form.is_opaque(source) and not form.is_opaque(target):
        form.set_opaque(target)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def link_all(source: str, target: str, names: Sequence[str]) -> None:
    """Links in the directory `target` to files of the directory `source`, under the same names."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    from_, to = os.open(source, flags), -1
    try:
        to = os.open(target, flags)
        for name in names:
            try:
                os.link(name, name, src_dir_fd=from_, dst_dir_fd=to, follow_symlinks=False)
            except OSError:
                link_or_copy(f"{source}/{name}", f"{target}/{name}")
    finally:
        os.close(from_)
        if to >= 0:
            os.close(to)


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where `source` has as many names as its file system allows (65,000 on ext4)."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK or not stat.S_ISREG(os.lstat(source).st_mode):
            raise
        _copy(source, target)


def _copy(source: str, target: str) -> None:
    """A regular file with all that a layer tells of it."""
    with open(source, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb", buffering=0) as copy:
            while os.sendfile(handle, file.fileno(), None, 1 << 24):
                pass
            os.fchown(handle, status.st_uid, status.st_gid)
            os.fchmod(handle, stat.S_IMODE(status.st_mode))
            copy_xattrs(source, target)
            os.utime(copy.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
