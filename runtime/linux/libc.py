"""The C library handle all calls go through, and the one place where a result becomes an `OSError`.

The library is loaded with `PyDLL`: a call keeps the interpreter lock. The calls below are short, and a raw clone(2)
must not come back in the child with the lock given away. Nothing here may block; blocking calls use `os` or `socket`.
"""

from __future__ import annotations

import ctypes
import os

libc = ctypes.PyDLL(None, use_errno=True)

_machine = os.uname().machine
# Calls below 424 have a number per architecture (arch/*/entry/syscalls), newer ones the same everywhere.
_NUMBERS: dict[str, tuple[int, int, int, int, int, int]] = {
    #            clone pivot_root seccomp bpf keyctl rt_sigaction
    "x86_64": (56, 155, 317, 321, 250, 13),
    "aarch64": (220, 41, 277, 280, 219, 134),
    "riscv64": (220, 41, 277, 280, 219, 134),
    "ppc64le": (120, 203, 358, 361, 271, 173),
    "s390x": (120, 217, 348, 351, 280, 174),
}
SYS_CLONE, SYS_PIVOT_ROOT, SYS_SECCOMP, SYS_BPF, SYS_KEYCTL, SYS_RT_SIGACTION = _NUMBERS.get(
    _machine, (-1,) * 6
)


def failed(call: str, subject: str = "") -> OSError:
    """The error of the call that just returned -1."""
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", subject or None)


def check(result: int, call: str, subject: str = "") -> int:
    if result < 0:
        raise failed(call, subject)
    return result


# syscall(2) is variadic: arguments must be full registers, so each caller declares longs and pointers itself.
syscall = libc.syscall
syscall.restype = ctypes.c_long
