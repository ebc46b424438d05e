"""Opening beneath a root: openat2(2), Linux 5.6."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_long, c_size_t, c_void_p

from runtime.linux.libc import check, syscall

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
