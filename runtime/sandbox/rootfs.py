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
_BY_DESCRIPTOR = 210  # layers whose names in /proc, of 18 bytes, fit into the page
_STRING = 255  # bytes of one value for fsconfig(2)
_MOST_LAYERS = 500  # of one overlay: OVL_MAX_STACK
# Layers must be comparable and movable: no redirects, no metadata-only copies, no index of inodes.
_UPPER_OPTIONS = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))


def _mount_overlay(rootfs: RootFs, place: str) -> None:
    """All layers in the one page mount(2) has for options, if they fit.

    What does not fit, or would need escaping, goes by the short names open directories have in /proc: two hundred layers
    do. More need `lowerdir+`, one layer a call, of Linux 6.5; an older kernel logs an error for every try.
    """
    rootfs = _within_limits(rootfs)
    options = _options(rootfs, lambda path: path)
    paths = "".join((*rootfs.lowers, rootfs.upper, rootfs.work))
    if len(options) <= _PAGE and not any(mark in paths for mark in _SPECIAL):
        linux.mount("overlay", place, "overlay", 0, options)
    elif len(rootfs.lowers) <= _BY_DESCRIPTOR:
        opened: list[int] = []
        try:
            linux.mount("overlay", place, "overlay", 0, _options(rootfs, lambda path: _short(path, opened)))
        finally:
            for descriptor in opened:
                os.close(descriptor)
    else:
        _attach(_layer_by_layer(rootfs), place)


def _within_limits(rootfs: RootFs) -> RootFs:
    """Of more layers than one overlay takes, the lowest as an overlay of their own, mounted on the topmost of these.

    Only the lowest can be put together: what a layer hides in those below must be in the same overlay. (A third level
    the kernel refuses: FILESYSTEM_MAX_STACK_DEPTH.)
    """
    if len(rootfs.lowers) <= _MOST_LAYERS:
        return rootfs
    kept, lowest = rootfs.lowers[: _MOST_LAYERS - 1], rootfs.lowers[_MOST_LAYERS - 1 :]
    if len(lowest) > _MOST_LAYERS:
        raise SandboxError(
            f"{len(rootfs.lowers)} layers are more than the kernel stacks",
            kind="unsupported",
            hint="put commands together, or COPY the files of a stage into another",
        )
    _attach(_layer_by_layer(RootFs(lowest)), lowest[0])
    return RootFs([*kept, lowest[0]], rootfs.upper, rootfs.work, rootfs.volatile)


def _layer_by_layer(rootfs: RootFs) -> int:
    """A detached overlay, reached by its descriptor alone; the caller closes."""
    context = linux.fsopen("overlay")
    try:
        for lower in rootfs.lowers:
            _set_path(context, "lowerdir+", lower)
        if rootfs.upper:
            _set_path(context, "upperdir", rootfs.upper)
            _set_path(context, "workdir", rootfs.work)
            for key, value in _UPPER_OPTIONS:
                linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, value)
            if rootfs.volatile:
                linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, "volatile")
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", "overlay")
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context)
    finally:
        os.close(context)


def _set_path(context: int, key: str, path: str) -> None:
    """A directory by its path, or by the short name of its descriptor: one string has 255 bytes, and `\\` escapes."""
    if len(os.fsencode(path)) <= _STRING and "\\" not in path:
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, path)
        return
    opened: list[int] = []
    try:
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, _short(path, opened))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _short(path: str, opened: list[int]) -> str:
    opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return f"/proc/self/fd/{opened[-1]}"


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
