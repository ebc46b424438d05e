"""Seccomp profiles: Docker's JSON to OCI's, OCI's to a BPF program, and programs kept on disk.

libseccomp compiles (never we); that takes tens of milliseconds, so a program is compiled once per profile, set of
capabilities, machine and library, and a start only reads it. `seccomp_default.json` is Docker's default profile
(moby/profiles, seccomp/default.json), unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from runtime.sandbox.errors import SandboxError

Json = dict[str, Any]

_DEFAULT = os.path.join(os.path.dirname(__file__), "seccomp_default.json")
_FORMAT = b"1"
# uname -m -> the words of Docker's profile, and of SCMP_ARCH_*.
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
# Calls newer than the libseccomp of Debian 12 (2.5.4), which skips names it does not know: the C library of a newer
# image would then see EPERM where it waits for ENOSYS. Numbers are the same everywhere (include/uapi/asm-generic/unistd.h).
_NEW_CALLS = {
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
_FIRST_UNKNOWN, _LAST_UNKNOWN = 470, 511
_ENOSYS = 38
_NR_SCMP_ERROR = -1
if os.uname().machine == "x86_64":
    _NEW_CALLS["uretprobe"] = 335


def default_profile() -> Json:
    """Docker's default profile, with its conditions."""
    import json

    with open(_DEFAULT, encoding="utf-8") as text:
        profile: Json = json.load(text)
    return profile


def kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(letter for letter in minor if letter.isdigit()) or 0)


def _applies(rule: Json, capabilities: frozenset[str], word: str, kernel: tuple[int, int]) -> bool:
    """moby, profiles/seccomp/seccomp_linux.go: any included architecture, every included capability, no excluded one."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and word not in includes["arches"]:
        return False
    if word in (excludes.get("arches") or ()):
        return False
    if not capabilities.issuperset(includes.get("caps") or ()) or capabilities.intersection(
        excludes.get("caps") or ()
    ):
        return False
    if minimum := includes.get("minKernel"):
        return kernel >= _version(minimum)
    return not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def resolve(
    profile: Json, capabilities: Iterable[str], *, machine: str = "", kernel: tuple[int, int] = (0, 0)
) -> Json:
    """A Docker profile as OCI's linux.seccomp for this machine: conditions decided, architectures named. Pure when told both."""
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        message = "the profile has no defaultAction"
        raise SandboxError(message, operation="read the seccomp profile", kind="input")
    machine = machine or os.uname().machine
    kernel = kernel if kernel != (0, 0) else kernel_version()
    word, arch = _MACHINES.get(machine, (machine, ""))
    held = frozenset(capabilities)
    if "architectures" in profile:
        architectures = list(profile["architectures"])
    else:
        families = {
            family["architecture"]: family.get("subArchitectures") or []
            for family in profile.get("archMap") or ()
        }
        architectures = [arch, *families.get(arch, [])] if arch else []
    rules = [
        {key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key) is not None}
        for rule in profile.get("syscalls") or ()
        if _applies(rule, held, word, kernel)
    ]
    resolved: Json = {
        "defaultAction": profile["defaultAction"],
        "architectures": architectures,
        "syscalls": rules,
    }
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return resolved


def compile_profile(resolved: Json) -> bytes:
    """OCI's linux.seccomp as a BPF program."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(
            f"libseccomp cannot be loaded: {error}",
            operation="compile the seccomp profile",
            kind="unsupported",
            hint="install the package libseccomp2, or run with seccomp=unconfined",
        ) from error
    try:
        return _compile(pyseccomp, resolved)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        message = f"{type(error).__name__}: {error}"
        raise SandboxError(message, operation="compile the seccomp profile", kind="input") from error


def _compile(library: Any, resolved: Json) -> bytes:
    default = _action(library, resolved["defaultAction"], resolved.get("defaultErrnoRet"))
    program = library.SyscallFilter(default)
    # A binary tree instead of a list: a few comparisons for every call the container makes (libseccomp 2.5).
    program.set_attr(library.Attr.CTL_OPTIMIZE, 2)
    program.set_attr(library.Attr.CTL_NNP, 0)
    rules = [
        (action, name, rule.get("args") or [])
        for rule in resolved.get("syscalls") or ()
        if (action := _action(library, rule["action"], rule.get("errnoRet"))) != default
        for name in rule["names"]
    ]
    # Numbers the library has no name for cannot be translated, so they are given while it knows only one architecture.
    for action, name, arguments in rules:
        if _number(library, name) is None and name in _NEW_CALLS:
            _add(library, program, action, _NEW_CALLS[name], arguments)
    if default == library.ERRNO(1):
        for unknown in range(_FIRST_UNKNOWN, _LAST_UNKNOWN + 1):
            program.add_rule(library.ERRNO(_ENOSYS), unknown)
    for architecture in resolved.get("architectures") or ():
        known_as = getattr(library.Arch, architecture.removeprefix("SCMP_ARCH_"))
        if known_as != library.system_arch():
            program.add_arch(known_as)
    for action, name, arguments in rules:
        if (number := _number(library, name)) is not None:
            _add(library, program, action, number, arguments)
    return _export(program)


def _action(library: Any, name: str, value: int | None) -> int:
    match name:
        case "SCMP_ACT_ERRNO":
            return int(library.ERRNO(1 if value is None else value))
        case "SCMP_ACT_TRACE":
            return int(library.TRACE(1 if value is None else value))
        case "SCMP_ACT_NOTIFY":
            raise ValueError("SCMP_ACT_NOTIFY needs a listener, which there is none of")
        case "SCMP_ACT_KILL":
            return int(library.KILL)
    return int(getattr(library, name.removeprefix("SCMP_ACT_")))


def _number(library: Any, name: str) -> int | None:
    """None for a name the library does not know. Those of other architectures are below -100, which it takes."""
    number = int(library.resolve_syscall(library.Arch.NATIVE, name))
    return None if number == _NR_SCMP_ERROR else number


def _add(library: Any, program: Any, action: int, number: int, arguments: list[Json]) -> None:
    indexes = [argument["index"] for argument in arguments]
    conditions = [_condition(library, argument) for argument in arguments]
    if len(set(indexes)) == len(indexes):
        program.add_rule(action, number, *conditions)
        return
    # Several comparisons of one argument are alternatives (libseccomp takes one per argument and rule).
    for condition in conditions:
        program.add_rule(action, number, condition)


def _condition(library: Any, argument: Json) -> Any:
    operator = getattr(library, argument["op"].removeprefix("SCMP_CMP_"))
    if operator == library.MASKED_EQ:
        return library.Arg(argument["index"], operator, argument["value"], argument.get("valueTwo") or 0)
    return library.Arg(argument["index"], operator, argument["value"])


def _export(program: Any) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def program(cache: str, capabilities: Iterable[str], profile: Json | None = None) -> str:
    """The path below `cache` of the compiled program, made if it is not there; `profile` None is the default one.

    Beside it lies the profile as OCI's linux.seccomp (`.json`), for runtimes that compile themselves.
    """
    held = sorted(capabilities)
    path = os.path.join(cache, _key(held, profile) + ".bpf")
    if os.path.exists(path):
        return path
    from runtime.sandbox.wire import dumps

    try:
        resolved = resolve(default_profile() if profile is None else profile, held)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
        raise SandboxError(message, operation="read the seccomp profile", kind="input") from error
    os.makedirs(cache, exist_ok=True)
    _place(path.removesuffix(".bpf") + ".json", dumps(resolved).encode())
    _place(path, compile_profile(resolved))
    return path


def _key(held: list[str], profile: Json | None) -> str:
    import hashlib

    if profile is None:
        with open(_DEFAULT, "rb") as text:
            content = text.read()
    else:
        from runtime.sandbox.wire import dumps

        content = dumps(profile).encode()
    machine = os.uname()
    digest = hashlib.sha256(
        b"\0".join((_FORMAT, machine.machine.encode(), machine.release.encode(), content))
    )
    digest.update("\0".join(held).encode())
    return digest.hexdigest()[:32]


def _place(path: str, content: bytes) -> None:
    """Written aside and renamed: readers see nothing or all, and makers at the same time make the same."""
    aside = f"{path}.{os.getpid()}"
    with open(aside, "wb") as file:
        file.write(content)
    os.replace(aside, path)
