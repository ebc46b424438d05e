"""Processes that outlive their owner.

A shim is forked by the spawner, which is single-threaded and small, and starts in a session of its own with nothing of
its maker but the descriptors it was given. What it then does is the caller's function.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
from typing import Any, NoReturn

from runtime.linux import namespaces as spaces
from runtime.linux import process as linux
from runtime.sandbox import wire


def fork_shim(entry: str, argument: dict[str, Any], fds: list[int], owner: socket.socket, mounts: int) -> int:
    """Fork and return the pid; `owner` hears "started" once the entry is importable, or why not."""
    pid = os.fork()
    if pid == 0:
        try:
            _become_shim(entry, argument, fds, owner, mounts)
        finally:
            os._exit(125)
    return pid


def _become_shim(
    entry: str, argument: dict[str, Any], fds: list[int], owner: socket.socket, mounts: int
) -> NoReturn:
    os.setsid()
    if mounts >= 0:
        spaces.setns(mounts, spaces.CLONE_NEWNS)
    os.chdir("/")
    kept = _close_others([owner.fileno(), *fds])
    owner.detach()
    line = socket.socket(fileno=kept[0])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    gc.enable()
    code = 1
    try:
        module, _, name = entry.partition(":")
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001  (the owner must hear of it, whatever it is)
        report = {"event": "failed", "operation": f"import {entry}", "error": str(error), "kind": "bug"}
        wire.send_packet(line, report)
        os._exit(code)
    wire.send_packet(line, {"event": "started", "pid": os.getpid()})
    line.close()
    try:
        code = int(function(argument, kept[1:]) or 0)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    os._exit(code)


def _close_others(wanted: list[int]) -> list[int]:
    """Move what is kept to 3, 4, …, close the rest, and put /dev/null on the standard streams."""
    high = [_duplicate_high(descriptor) for descriptor in wanted]
    kept = list(range(3, 3 + len(high)))
    for target, descriptor in zip(kept, high):
        os.dup2(descriptor, target, inheritable=False)
    linux.close_range(3 + len(high), 0xFFFFFFFF)
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    os.close(null)
    return kept


def _duplicate_high(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 200)
