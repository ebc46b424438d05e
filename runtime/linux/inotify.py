"""inotify(7): hear of changes in a directory. The events themselves are not read: who hears looks again."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int, c_uint32

from runtime.linux.libc import check, libc

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_IN_CLOEXEC = os.O_CLOEXEC

libc.inotify_init1.argtypes = (c_int,)
libc.inotify_add_watch.argtypes = (c_int, c_char_p, c_uint32)


def inotify_init() -> int:
    """inotify_init1(2); the caller closes."""
    return check(libc.inotify_init1(_IN_CLOEXEC), "inotify_init1")


def inotify_add_watch(descriptor: int, path: str, mask: int) -> int:
    """inotify_add_watch(2)."""
    return check(libc.inotify_add_watch(descriptor, os.fsencode(path), mask), "inotify_add_watch", path)
