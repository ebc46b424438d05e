"""The allocator of glibc: mallopt(3)."""

from __future__ import annotations

from ctypes import c_int

from runtime.linux.libc import libc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def mallopt(parameter: int, value: int) -> None:
    """mallopt(3); does nothing where the C library has none (musl)."""
    call = getattr(libc, "mallopt", None)
    if call is None:
        return
    call.argtypes = (c_int, c_int)
    if not call(parameter, value):
        raise OSError(f"mallopt: {parameter} cannot be {value}")
