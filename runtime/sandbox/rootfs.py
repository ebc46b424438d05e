"""The container's root: an overlay put together from layers, or a directory, entered with pivot_root.

The overlay is mounted detached and attached over one of its own directories, which needs no mount point of its own
and leaves nothing behind: the whole lives in the container's mount namespace.
"""

from __future__ import annotations

import errno
import os

from runtime.linux import mounts as linux
from runtime.sandbox.plan import RootFs

# Layers must be comparable and movable: no redirects, no metadata-only copies, no index of inodes.
_UPPER_OPTIONS = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))


def overlay(rootfs: RootFs) -> int:
    """The detached overlay mount; the caller closes."""
    context = linux.fsopen("overlay")
    try:
        _add_lowers(context, rootfs.lowers)
        if rootfs.upper:
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "upperdir", rootfs.upper)
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "workdir", rootfs.work)
            for key, value in _UPPER_OPTIONS:
                linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, value)
            if rootfs.volatile:
                linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, "volatile")
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", "overlay")
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context)
    finally:
        os.close(context)


def _add_lowers(context: int, lowers: list[str]) -> None:
    """`lowerdir+` takes one directory at a time, hundreds of them, without escaping. Linux 6.5."""
    try:
        for lower in lowers:
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "lowerdir+", lower)
    except OSError as error:
        if error.errno != errno.EINVAL or not all(os.path.isdir(lower) for lower in lowers):
            raise
        joined = ":".join(escape(lower) for lower in lowers)
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "lowerdir", joined)


def escape(path: str) -> str:
    r"""A directory in overlay's list: `\` and `:` are written with a backslash."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def _directory(path: str) -> int:
    flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE
    tree = linux.open_tree(linux.AT_FDCWD, path, flags)
    recursive = linux.AT_EMPTY_PATH | linux.AT_RECURSIVE
    linux.mount_setattr(tree, "", recursive, propagation=linux.MS_PRIVATE)
    return tree


def mount_root(rootfs: RootFs | None, path: str) -> str:
    """Mount the root and say where it is. Its place is a directory that exists anyway, seen only by this namespace."""
    if rootfs is None:
        tree, place = _directory(path), path
    elif not rootfs.lowers:
        tree, place = _directory(rootfs.upper), rootfs.upper
    elif not rootfs.upper and len(rootfs.lowers) == 1:
        tree, place = _directory(rootfs.lowers[0]), rootfs.lowers[0]
    else:
        tree, place = overlay(rootfs), rootfs.upper or rootfs.lowers[0]
    try:
        linux.move_mount(tree, linux.AT_FDCWD, place)
    finally:
        os.close(tree)
    return place


def enter(place: str) -> None:
    """Make `place` the root and let go of the old one.

    pivot_root(".", ".") stacks the old root on the new one, so it needs no directory inside (pivot_root(2), NOTES).
    """
    os.chdir(place)
    linux.pivot_root(".", ".")
    # The old root still propagates to nowhere: it was made a slave first, or umount would reach the host.
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")


def make_readonly() -> None:
    linux.mount_setattr(linux.AT_FDCWD, "/", 0, add=linux.MOUNT_ATTR_RDONLY)
