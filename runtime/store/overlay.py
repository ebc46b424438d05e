"""Overlay mounts of snapshots at a path below the store, for as long as a `with` lasts.

They live in the mount namespace of the caller. A process that called `private_mounts()` takes them along when it dies;
what others leave is detached by the garbage collector, which knows the owner by the directory's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.linux import mounts
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.owners import own_token

# A page holds the options of mount(2), and older kernels know nothing better.
_OPTIONS_LIMIT = 4000
_MOST_LAYERS = 500  # of one overlay: OVL_MAX_STACK


@contextmanager
def overlay(
    directory: str, lowers: Sequence[str], upper: str = "", work: str = "", *, empty: str
) -> Iterator[str]:
    """The merged view at a new path below `directory`: read-only without `upper`. `empty` is an empty directory."""
    target = os.path.join(directory, f"{os.urandom(4).hex()}.{own_token()}")
    with faults_of_the_host(f"cannot mount an overlay below {directory}"):
        os.mkdir(target, 0o700)
        try:
            count = _mount_all(target, lowers, upper, work, empty)
        except BaseException:
            os.rmdir(target)
            raise
    try:
        yield target
    finally:
        # Detach: a process the block started may still be on its way out.
        for _ in range(count):
            mounts.umount(target, mounts.MNT_DETACH)
        os.rmdir(target)


def _mount_all(target: str, lowers: Sequence[str], upper: str, work: str, empty: str) -> int:
    """How many mounts lie on `target` then: of more layers than one overlay takes, the lowest are one of their own."""
    if len(lowers) <= _MOST_LAYERS:
        mount_overlay(target, lowers, upper, work, empty=empty)
        return 1
    kept, lowest = lowers[: _MOST_LAYERS - 1], lowers[_MOST_LAYERS - 1 :]
    mount_overlay(target, lowest, "", "", empty=empty)
    try:
        mount_overlay(target, [*kept, target], upper, work, empty=empty)
    except BaseException:
        mounts.umount(target, mounts.MNT_DETACH)
        raise
    return 2


def mount_overlay(target: str, lowers: Sequence[str], upper: str, work: str, *, empty: str) -> None:
    """Mount; an overlay needs two lower directories or an upper one (overlayfs.rst), so `empty` fills up."""
    wanted = list(lowers)
    while len(wanted) < (1 if upper else 2):
        wanted.append(empty)
    # With redirects a renamed directory would not be in the upper, only a hint where it was.
    lower = ":".join(_escaped(path).replace(":", r"\:") for path in wanted)
    options = [f"lowerdir={lower}", "redirect_dir=off", "metacopy=off", "index=off"]
    if upper:
        # Without `volatile` an unmount waits until everything is on the disk; with it a second mount is refused
        # while the mark of the first is there.
        _forget_volatile(work)
        options += [f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}", "volatile"]
    data = ",".join(options)
    if len(data) < _OPTIONS_LIMIT:
        mounts.mount("overlay", target, "overlay", 0 if upper else mounts.MS_RDONLY, data)
    else:
        _mount_by_descriptor(target, wanted, upper, work)


def _escaped(path: str) -> str:
    return path.replace("\\", r"\\").replace(",", r"\,")


def _forget_volatile(work: str) -> None:
    remove_tree(os.path.join(work, "work", "incompat", "volatile"))


def _mount_by_descriptor(target: str, lowers: Sequence[str], upper: str, work: str) -> None:
    """The same with one fsconfig(2) per lower directory (`lowerdir+`, Linux 6.8): no limit but overlayfs's own 500."""
    context = mounts.fsopen("overlay")
    try:
        for lower in lowers:
            mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, "lowerdir+", lower)
        settings = {"redirect_dir": "off", "metacopy": "off", "index": "off"}
        if upper:
            settings |= {"upperdir": upper, "workdir": work}
            mounts.fsconfig(context, mounts.FSCONFIG_SET_FLAG, "volatile")
        for key, value in settings.items():
            mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, key, value)
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        tree = mounts.fsmount(context, 0 if upper else mounts.MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)
    try:
        mounts.move_mount(tree, mounts.AT_FDCWD, target)
    finally:
        os.close(tree)
