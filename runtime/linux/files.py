"""Opening beneath a root: openat2(2), Linux 5.6; and what os.stat leaves out of statx(2)."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_void_p
from sys import byteorder

from runtime.linux.libc import check, libc, syscall

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 1, 2, 4
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 8, 16
_SYS_OPENAT2 = 437


class _OpenHow(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("flags", "mode", "resolve"))


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), always close-on-exec; the caller closes."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    where, pointer = c_char_p(os.fsencode(path)), c_void_p(ctypes.addressof(how))
    size = c_size_t(ctypes.sizeof(how))
    return check(syscall(c_long(_SYS_OPENAT2), c_long(directory), where, pointer, size), "openat2", path)


_STATX_BTIME = 0x800
_STATX_BASIC_STATS = 0x7FF
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_STATX_FORCE_SYNC = -100, 0x100, 0x2000
_MASK, _BTIME, _SIZE = 0, 80, 256  # offsets of struct statx (linux/stat.h) and its size


def birth_time(path: bytes) -> int:
    """Nanoseconds since 1970 at which the inode was made, by statx(2); 0 where the file system does not keep that."""
    record = ctypes.create_string_buffer(_SIZE)
    arguments = (c_int(_AT_FDCWD), c_char_p(path), c_int(_AT_SYMLINK_NOFOLLOW), c_uint(_STATX_BTIME))
    check(libc.statx(*arguments, record), "statx", os.fsdecode(path))
    raw = record.raw
    if not int.from_bytes(raw[_MASK : _MASK + 4], byteorder) & _STATX_BTIME:
        return 0
    seconds = int.from_bytes(raw[_BTIME : _BTIME + 8], byteorder, signed=True)
    return seconds * 10**9 + int.from_bytes(raw[_BTIME + 8 : _BTIME + 12], byteorder)


def synchronize_status(path: bytes) -> None:
    """statx(2) with AT_STATX_FORCE_SYNC: what stat(2) says next is what the file system's server says, not what was kept of it."""
    record = ctypes.create_string_buffer(_SIZE)
    flags = c_int(_AT_SYMLINK_NOFOLLOW | _AT_STATX_FORCE_SYNC)
    arguments = (c_int(_AT_FDCWD), c_char_p(path), flags, c_uint(_STATX_BASIC_STATS))
    check(libc.statx(*arguments, record), "statx", os.fsdecode(path))
