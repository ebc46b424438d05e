"""bpf(2): loading a program and attaching it to a control group."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_long, c_uint, c_void_p

from runtime.linux.libc import SYS_BPF, check, syscall

BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 15, 6
_BPF_PROG_LOAD, _BPF_PROG_ATTACH, _BPF_PROG_DETACH = 5, 8, 9
_BPF_F_ALLOW_MULTI = 2


class _Load(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _Attach(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32) for name in ("target_fd", "attach_bpf_fd", "attach_type", "attach_flags")
    )


def _bpf(command: int, attributes: ctypes.Structure, call: str) -> int:
    pointer, size = c_void_p(ctypes.addressof(attributes)), c_uint(ctypes.sizeof(attributes))
    return check(syscall(c_long(SYS_BPF), c_int(command), pointer, size), call)


def program_load(kind: int, instructions: bytes, license_: bytes) -> int:
    """bpf(2), BPF_PROG_LOAD; the caller closes."""
    code, text = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(license_)
    attributes = _Load(
        prog_type=kind,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(text),
    )
    return _bpf(_BPF_PROG_LOAD, attributes, "bpf(BPF_PROG_LOAD)")


def program_attach(group: int, program: int) -> None:
    """bpf(2), BPF_PROG_ATTACH of a device program to a control group."""
    attributes = _Attach(group, program, BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
    _bpf(_BPF_PROG_ATTACH, attributes, "bpf(BPF_PROG_ATTACH)")
