"""The program between Python and the container's program, as a sealed file in memory; see `helper.c` for why.

One is made per spawner and inherited by every child. On a machine for which none is built, programs are executed
directly and there is no `--init`.
"""

from __future__ import annotations

import fcntl
import os

_F_ADD_SEALS, _ALL_SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8
_MFD_EXEC = 0x10
LINE = 3


def path(machine: str = "") -> str:
    """Where the one for this machine lies, if there is one."""
    return os.path.join(os.path.dirname(__file__), f"helper.{machine or os.uname().machine}")


def _source(machine: str) -> bytes:
    try:
        with open(path(machine), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("pipe", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3, where files in memory are always executable
        return os.memfd_create("pipe", flags)


def load(machine: str = "") -> int:
    """A descriptor of the helper for this machine, -1 when there is none."""
    program = _source(machine)
    if not program:
        return -1
    descriptor = _memory_file()
    os.write(descriptor, program)
    os.fchmod(descriptor, 0o555)
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)
    return descriptor
