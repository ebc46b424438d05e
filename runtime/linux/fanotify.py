"""fanotify_init(2), fanotify_mark(2): hear of what happens to the files of many directories."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int, c_uint, c_uint64

from runtime.linux.libc import check, libc

FAN_CLASS_NOTIF, FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_QUEUE, FAN_UNLIMITED_MARKS = (
    0x0,
    0x1,
    0x2,
    0x10,
    0x20,
)
FAN_MARK_ADD, FAN_MARK_DONT_FOLLOW = 0x1, 0x4
FAN_CLOSE_WRITE, FAN_EVENT_ON_CHILD = 0x8, 0x08000000

_init, _mark = libc.fanotify_init, libc.fanotify_mark
_init.argtypes = (c_uint, c_uint)
_mark.argtypes = (c_int, c_uint, c_uint64, c_int, c_char_p)


def fanotify_init(flags: int, event_flags: int) -> int:
    """fanotify_init(2); the caller closes."""
    return check(_init(flags, event_flags), "fanotify_init")


def fanotify_mark(group: int, flags: int, mask: int, directory: int, path: bytes) -> None:
    """fanotify_mark(2)."""
    check(_mark(group, flags, mask, directory, path), "fanotify_mark", os.fsdecode(path))
