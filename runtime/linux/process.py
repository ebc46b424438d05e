"""What a process sets about itself before it becomes a program: prctl(2), capset(2), seccomp(2), descriptors, keyrings."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p

from runtime.linux.libc import SYS_KEYCTL, SYS_RT_SIGACTION, SYS_SECCOMP, check, libc, syscall

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 23, 24, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
CLOSE_RANGE_CLOEXEC = 4
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 2, 4
KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_CLOSE_RANGE = 436
_CAP_VERSION_3 = 0x20080522

_prctl = libc.prctl
_prctl.argtypes = (c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_personality = libc.personality
_personality.argtypes = (c_ulong,)
_execveat = libc.execveat
_execveat.argtypes = (c_int, c_char_p, c_void_p, c_void_p, c_int)


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """prctl(2)."""
    return check(_prctl(option, value, third, 0, 0), "prctl", str(option))


def default_action(signal: int) -> None:
    """rt_sigaction(2) to SIG_DFL, also for 32 and 33, which libc keeps to itself and refuses in sigaction(3)."""
    nothing = ctypes.create_string_buffer(64)  # struct kernel_sigaction, all zero
    result = syscall(c_long(SYS_RT_SIGACTION), c_long(signal), nothing, c_void_p(None), c_long(8))
    check(result, "rt_sigaction", str(signal))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", c_int))


class _CapData(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread, masks of 64 bits."""
    header = _CapHeader(_CAP_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = (_CapData * 2)(
        _CapData(effective & low, permitted & low, inheritable & low),
        _CapData(effective >> high, permitted >> high, inheritable >> high),
    )
    check(libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2)."""
    check(syscall(c_long(_SYS_CLOSE_RANGE), c_uint(first), c_uint(last), c_uint(flags)), "close_range")


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", c_char_p))


def seccomp(program: bytes, flags: int = 0) -> None:
    """seccomp(2), SECCOMP_SET_MODE_FILTER with a classic BPF program of 8-byte instructions."""
    filter_ = _SockFprog(len(program) // 8, program)
    pointer = c_void_p(ctypes.addressof(filter_))
    result = syscall(c_long(SYS_SECCOMP), c_long(SECCOMP_SET_MODE_FILTER), c_ulong(flags), pointer)
    check(result, "seccomp")


def personality(value: int) -> int:
    """personality(2)."""
    return check(_personality(value), "personality", hex(value))


def join_session_keyring(name: str) -> int:
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING."""
    result = syscall(c_long(SYS_KEYCTL), c_long(KEYCTL_JOIN_SESSION_KEYRING), c_char_p(name.encode()))
    return check(result, "keyctl", name)


def execveat(descriptor: int, argv: Sequence[bytes], env: Sequence[bytes]) -> None:
    """execveat(2) of the file behind a descriptor."""
    arguments = (c_char_p * (len(argv) + 1))(*argv, None)
    environment = (c_char_p * (len(env) + 1))(*env, None)
    check(_execveat(descriptor, b"", arguments, environment, 0x1000), "execveat", os.fsdecode(argv[0]))
