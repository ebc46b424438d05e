"""Copying a directory's content from one descriptor to another, owners and modes included (a tmpfs with `tmpcopyup`)."""

from __future__ import annotations

import os
import stat

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def copy_tree(source: int, target: int) -> None:
    """`source` and `target` are directories, perhaps O_PATH; links are copied as links, nothing is followed."""
    above = os.open(".", _FLAGS | os.O_DIRECTORY, dir_fd=source)
    below = os.open(".", _FLAGS | os.O_DIRECTORY, dir_fd=target)
    try:
        for name in os.listdir(above):
            _copy(name, above, below)
        found = os.fstat(above)
        os.fchown(below, found.st_uid, found.st_gid)
        os.fchmod(below, stat.S_IMODE(found.st_mode))
    finally:
        os.close(above)
        os.close(below)


def _copy(name: str, above: int, below: int) -> None:
    found = os.stat(name, dir_fd=above, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(name, dir_fd=below)
        _descend(name, above, below)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=above), name, dir_fd=below)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=below, follow_symlinks=False)
    elif stat.S_ISREG(found.st_mode):
        _copy_file(name, above, below, found)
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=below)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=below, follow_symlinks=False)


def _descend(name: str, above: int, below: int) -> None:
    source = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=above)
    target = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=below)
    try:
        copy_tree(source, target)
    finally:
        os.close(source)
        os.close(target)


def _copy_file(name: str, above: int, below: int, found: os.stat_result) -> None:
    source = os.open(name, _FLAGS, dir_fd=above)
    target = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=below
    )
    try:
        while os.sendfile(target, source, None, 1 << 24):
            pass
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))
    finally:
        os.close(source)
        os.close(target)
