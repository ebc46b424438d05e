"""OCI's device rules as an eBPF program for a v2 group (BPF_PROG_TYPE_CGROUP_DEVICE, attached with bpf(2)).

The program sees the kind of access, major and minor, and answers 1 or 0. Rules are tried from the last to the first and
the first match decides, which is what a list of "deny all, then allow" means.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from runtime.linux.bpf import BPF_PROG_TYPE_CGROUP_DEVICE, program_attach, program_load
from runtime.sandbox.errors import SandboxError

Json = dict[str, Any]

_BPF_DEVCG_ACC = {"m": 1, "r": 2, "w": 4}
_KINDS = {"b": 1, "c": 2, "u": 2}
# linux/bpf.h: classes and operations of the instructions used.
_LDX_W, _MOV_K, _MOV_X, _AND_K, _RSH_K, _JNE_K, _JNE_X, _EXIT = 0x61, 0xB7, 0xBF, 0x57, 0x77, 0x55, 0x5D, 0x95
_ACCESS, _KIND, _MAJOR, _MINOR, _SCRATCH = 2, 3, 4, 5, 1


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, value)


def _tests(rule: Json) -> list[tuple[int, int, int]]:
    """(register, mask or 0, value): all must hold for the rule to match."""
    found = []
    if (kind := rule.get("type") or "a") != "a":
        found.append((_KIND, 0, _KINDS[kind]))
    for register, key in ((_MAJOR, "major"), (_MINOR, "minor")):
        number = rule.get(key)
        if number is not None and number >= 0:
            found.append((register, 0, number))
    return found


def _rule(rule: Json) -> bytes:
    """Each failed test jumps over the rest of the rule."""
    body: list[tuple[int, int, int, int]] = [
        (_JNE_K, register, 0, value) for register, _, value in _tests(rule)
    ]
    access = sum(_BPF_DEVCG_ACC[letter] for letter in set(rule.get("access") or "rwm"))
    if access != 7:
        # What is asked for must be a subset of what the rule speaks of.
        body += [
            (_MOV_X, _SCRATCH, _ACCESS, 0),
            (_AND_K, _SCRATCH, 0, access),
            (_JNE_X, _SCRATCH, _ACCESS, 0),
        ]
    size = len(body) + 2
    text = b""
    for position, (code, target, source, value) in enumerate(body):
        offset = size - position - 1 if code in (_JNE_K, _JNE_X) else 0
        text += _instruction(code, target, source, offset, value)
    return text + _instruction(_MOV_K, 0, value=int(bool(rule.get("allow")))) + _instruction(_EXIT)


def assemble(rules: list[Json]) -> bytes:
    """Pure. struct bpf_cgroup_dev_ctx: access_type (access << 16 | kind), major, minor."""
    text = _instruction(_LDX_W, _KIND, 1, 0) + _instruction(_MOV_X, _ACCESS, _KIND)
    text += _instruction(_AND_K, _KIND, value=0xFFFF) + _instruction(_RSH_K, _ACCESS, value=16)
    text += _instruction(_LDX_W, _MAJOR, 1, 4) + _instruction(_LDX_W, _MINOR, 1, 8)
    for rule in reversed(rules):
        text += _rule(rule)
        if not _tests(rule) and set(rule.get("access") or "rwm") == set("rwm"):
            return text  # It decides everything; the verifier refuses instructions that cannot be reached.
    # Without any matching rule: denied.
    return text + _instruction(_MOV_K, 0, value=0) + _instruction(_EXIT)


def attach(directory: str, rules: list[Json]) -> None:
    """Load the program and attach it to a group; the group holds it until it is removed."""
    try:
        program = program_load(BPF_PROG_TYPE_CGROUP_DEVICE, assemble(rules), b"Apache-2.0")
    except OSError as error:
        message = f"this kernel takes no device program: {error.strerror}"
        raise SandboxError(message, operation="restrict devices", kind="unsupported") from error
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        program_attach(group, program)
    finally:
        os.close(group)
        os.close(program)
