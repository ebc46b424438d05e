"""fanotify_init(2), fanotify_mark(2): hear of what happens on a whole file system."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int, c_uint, c_uint64

from runtime.linux.libc import check, libc

FAN_CLOEXEC, FAN_NONBLOCK, FAN_CLASS_NOTIF, FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x0, 0x10
FAN_MARK_ADD, FAN_MARK_FILESYSTEM = 0x1, 0x100  # the latter since Linux 4.20
FAN_CLOSE_WRITE = 0x8

_init, _mark = libc.fanotify_init, libc.fanotify_mark
_init.argtypes = (c_uint, c_uint)
_mark.argtypes = (c_int, c_uint, c_uint64, c_int, c_char_p)


def fanotify_init(flags: int, event_flags: int) -> int:
    """fanotify_init(2); the caller closes."""
    return check(_init(flags, event_flags), "fanotify_init")


def fanotify_mark(group: int, flags: int, mask: int, directory: int, path: str) -> None:
    """fanotify_mark(2)."""
    check(_mark(group, flags, mask, directory, os.fsencode(path)), "fanotify_mark", path)
