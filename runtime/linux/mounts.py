"""mount(2) and the newer calls on mount file descriptors (Linux 5.2 and later)."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p

from runtime.linux.libc import SYS_PIVOT_ROOT, check, libc, syscall

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT = 1, 2, 4, 8, 16, 32
MS_DIRSYNC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = 128, 256, 1024, 2048
MS_BIND, MS_MOVE, MS_REC, MS_SILENT = 4096, 8192, 16384, 32768
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25
MNT_DETACH = 2

AT_FDCWD = -100
AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW = 0x1000, 0x8000, 0x100
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME = 0x70, 0, 0x10, 0x20
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x100000, 0x200000

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_SYS_MOUNT_SETATTR = 442

_mount = libc.mount
_mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = libc.umount2
_umount2.argtypes = (c_char_p, c_int)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    raw = os.fsencode
    check(_mount(raw(source), raw(target), raw(fstype), flags, raw(data) if data else None), "mount", target)


def umount(path: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(_umount2(os.fsencode(path), flags), "umount2", path)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    new, old = c_char_p(os.fsencode(new_root)), c_char_p(os.fsencode(put_old))
    check(syscall(c_long(SYS_PIVOT_ROOT), new, old), "pivot_root", new_root)


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2); the caller closes."""
    where = c_char_p(os.fsencode(path))
    return check(syscall(c_long(_SYS_OPEN_TREE), c_long(directory), where, c_uint(flags)), "open_tree", path)


def move_mount(source: int, target: int, target_path: str = "") -> None:
    """move_mount(2) of the mount behind a descriptor onto `target`, or onto a path relative to it."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target_path else MOVE_MOUNT_T_EMPTY_PATH)
    empty, to = c_char_p(b""), c_char_p(os.fsencode(target_path))
    result = syscall(c_long(_SYS_MOVE_MOUNT), c_long(source), empty, c_long(target), to, c_uint(flags))
    check(result, "move_mount", target_path)


def fsopen(fstype: str) -> int:
    """fsopen(2); the caller closes."""
    kind = c_char_p(fstype.encode())
    return check(syscall(c_long(_SYS_FSOPEN), kind, c_uint(FSOPEN_CLOEXEC)), "fsopen", fstype)


def fsconfig(
    context: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0
) -> None:
    """fsconfig(2)."""
    name = c_char_p(key.encode()) if key is not None else c_char_p(None)
    text = c_char_p(os.fsencode(value)) if value is not None else c_char_p(None)
    result = syscall(c_long(_SYS_FSCONFIG), c_long(context), c_uint(command), name, text, c_long(aux))
    check(result, "fsconfig", f"{key}={value}" if key else "")


def fsmount(context: int, attributes: int = 0) -> int:
    """fsmount(2); the caller closes."""
    result = syscall(c_long(_SYS_FSMOUNT), c_long(context), c_uint(FSMOUNT_CLOEXEC), c_uint(attributes))
    return check(result, "fsmount")


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    directory: int,
    path: str,
    flags: int,
    *,
    add: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12."""
    attributes = _MountAttr(add, clear, propagation, userns)
    where, size = c_char_p(os.fsencode(path)), ctypes.c_size_t(ctypes.sizeof(attributes))
    pointer = c_void_p(ctypes.addressof(attributes))
    result = syscall(c_long(_SYS_MOUNT_SETATTR), c_long(directory), where, c_uint(flags), pointer, size)
    check(result, "mount_setattr", path)
