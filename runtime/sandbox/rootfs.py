"""The container's root: an overlay put together from layers, or a directory, entered with pivot_root.

The overlay is mounted over one of its own directories, which needs no mount point of its own and leaves nothing
behind: the whole lives in the container's mount namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from runtime.linux import mounts as linux
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.mounts import PROPAGATION
from runtime.sandbox.plan import RootFs

# What the kernel says when the upper directory's file system has no whiteouts or attributes (overlayfs.rst, Upper and lower).
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)
_ELSEWHERE = (
    "an overlay or a network file system cannot hold the store: see `pipe doctor`, and set PIPE_ROOT to a directory on "
    "another, in a container for example on a volume"
)
_PAGE, _SPECIAL = 4000, ",:\\"
# Layers must be comparable and movable: no redirects, no metadata-only copies, no index of inodes.
_UPPER_OPTIONS = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))


def overlay(rootfs: RootFs) -> int:
    """A detached overlay, reached by its descriptor alone; the caller closes. From Linux 6.5 on (`lowerdir+`)."""
    context = linux.fsopen("overlay")
    try:
        for lower in rootfs.lowers:
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "lowerdir+", lower)
        if rootfs.upper:
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "upperdir", rootfs.upper)
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "workdir", rootfs.work)
            for key, value in _UPPER_OPTIONS:
                linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, value)
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", "overlay")
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context)
    finally:
        os.close(context)


def _mount_overlay(rootfs: RootFs, place: str) -> None:
    """All layers in the one page mount(2) has for options.

    `lowerdir+`, one layer a call, needs Linux 6.5, and an older kernel logs an error for every try. What does not fit, or
    would need escaping, goes by the short names open directories have in /proc: two hundred layers do.
    """
    options = _options(rootfs, lambda path: path)
    paths = "".join((*rootfs.lowers, rootfs.upper, rootfs.work))
    if len(options) <= _PAGE and not any(mark in paths for mark in _SPECIAL):
        linux.mount("overlay", place, "overlay", 0, options)
        return
    opened: list[int] = []

    def short(path: str) -> str:
        opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{opened[-1]}"

    try:
        linux.mount("overlay", place, "overlay", 0, _options(rootfs, short))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _options(rootfs: RootFs, name: Callable[[str], str]) -> str:
    options = ["lowerdir=" + ":".join(map(name, rootfs.lowers))]
    if rootfs.upper:
        options += [f"upperdir={name(rootfs.upper)}", f"workdir={name(rootfs.work)}"]
        options += [f"{key}={value}" for key, value in _UPPER_OPTIONS]
        options += ["volatile"] if rootfs.volatile else []
    return ",".join(options)


def _attach(tree: int, place: str) -> None:
    try:
        linux.move_mount(tree, linux.AT_FDCWD, place)
    finally:
        os.close(tree)


def _directory(path: str) -> int:
    flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE
    tree = linux.open_tree(linux.AT_FDCWD, path, flags)
    recursive = linux.AT_EMPTY_PATH | linux.AT_RECURSIVE
    linux.mount_setattr(tree, "", recursive, propagation=linux.MS_PRIVATE)
    return tree


def mount_root(rootfs: RootFs | None, path: str) -> str:
    """Mount the root and say where it is. Its place is a directory that exists anyway, seen only by this namespace."""
    if rootfs is None:
        place = path
        _attach(_directory(path), place)
    elif not rootfs.lowers:
        place = rootfs.upper
        _attach(_directory(place), place)
    elif not rootfs.upper and len(rootfs.lowers) == 1:
        place = rootfs.lowers[0]
        _attach(_directory(place), place)
    else:
        place = rootfs.upper or rootfs.lowers[0]
        try:
            _mount_overlay(rootfs, place)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            raise SandboxError(
                f"an overlay on {place} is refused: {error.strerror}", hint=_ELSEWHERE
            ) from error
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


def propagate(words: str) -> None:
    """linux.rootfsPropagation, of the container's root towards mounts made below it."""
    kind = PROPAGATION.get(words.removeprefix("r"))
    if kind is None:
        raise SandboxError(f"unknown rootfsPropagation {words!r}", kind="input")
    linux.mount_setattr(linux.AT_FDCWD, "/", linux.AT_RECURSIVE if words[0] == "r" else 0, propagation=kind)
