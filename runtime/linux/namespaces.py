"""clone(2), unshare(2), setns(2) and the names a UTS namespace holds."""

from __future__ import annotations

from ctypes import byref, c_char_p, c_int, c_long, c_size_t

from runtime.linux.libc import SYS_CLONE, check, libc, syscall

CLONE_NEWTIME, CLONE_PIDFD = 0x80, 0x1000
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_SIGCHLD = 17
_unshare, _setns = libc.unshare, libc.setns
_unshare.argtypes, _setns.argtypes = (c_int,), (c_int, c_int)
_sethostname, _setdomainname = libc.sethostname, libc.setdomainname
_sethostname.argtypes = _setdomainname.argtypes = (c_char_p, c_size_t)


def clone(flags: int) -> tuple[int, int]:
    """clone(2) without a new stack, like fork: (0, -1) in the child, (pid, pidfd) in the parent.

    Python's own after-fork work is left out, so the calling process must be single-threaded and the child must end
    in exec or `os._exit`.
    """
    pidfd = c_int(-1)
    zero = c_long(0)
    result = syscall(
        c_long(SYS_CLONE), c_long(flags | CLONE_PIDFD | _SIGCHLD), zero, byref(pidfd), zero, zero
    )
    return check(result, "clone"), pidfd.value


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(_unshare(flags), "unshare", hex(flags))


def setns(descriptor: int, kind: int = 0) -> None:
    """setns(2)."""
    check(_setns(descriptor, kind), "setns", str(descriptor))


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    check(_sethostname(raw, len(raw)), "sethostname", name)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    raw = name.encode()
    check(_setdomainname(raw, len(raw)), "setdomainname", name)
