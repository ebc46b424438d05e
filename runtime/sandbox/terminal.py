"""The container's own pseudo-terminal: made on its /dev/pts, bound on /dev/console, its master sent to the owner.

The slave is taken with TIOCGPTPEER from the master itself: a path below a foreign /dev could be anything.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from runtime.linux import mounts as linux
from runtime.sandbox.paths import Root

_TIOCGPTPEER, _TIOCSPTLCK = 0x5441, 0x40045431


def open_terminal(root: Root, rows: int, columns: int) -> tuple[int, int]:
    """(master, slave)."""
    master = root.find("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if rows and columns:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return master, slave


def bind_console(root: Root, slave: int) -> None:
    tree = linux.open_tree(slave, "", linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH)
    try:
        place = root.file("/dev/console")
        try:
            linux.move_mount(tree, place)
        finally:
            os.close(place)
    finally:
        os.close(tree)


def take_terminal(slave: int) -> None:
    """Make it the controlling terminal of this session; the caller is the session's leader."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
