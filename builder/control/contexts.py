"""The clients' directories as they were sent last, so that of the next build's only changes have to come.

Each lies in the store below `daemon/contexts`, under a name made of the client's own name for it, with a lock beside it.
While a build reads from one nobody writes to it: a second build from the same directory gets a place of its own, gone
with it. What was received before the machine was booted is not trusted, since times are written before contents. The
last used are kept, in number, time and size.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.store.durable import remove_tree
from runtime.store.owners import boot_id, own_token

_MOST, _DAYS, _BYTES = 32, 7, 10 << 30
_DIRECTORY = os.path.join("daemon", "contexts")


@contextmanager
def kept_directory(root: str, key: str, *, lasting: bool = True) -> Iterator[str]:
    """The directory for what a client calls `key`, ours alone within the block. `root` is the store's."""
    if not lasting:
        with passing_directory(root) as path:
            yield path
        return
    top = os.path.join(root, _DIRECTORY)
    os.makedirs(top, mode=0o700, exist_ok=True)
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    lock = _locked(os.path.join(top, f"{name}.lock"))
    if lock is None:
        with passing_directory(root) as path:
            yield path
        return
    try:
        yield _trusted(os.path.join(top, name))
        os.utime(lock)
    finally:
        os.close(lock)


@contextmanager
def passing_directory(root: str) -> Iterator[str]:
    """For the block only, and known for garbage if we are killed."""
    path = os.path.join(root, "drafts", f"{os.urandom(8).hex()}.{own_token()}")
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        remove_tree(path)


def _locked(path: str) -> int | None:
    """A lock that goes with its descriptor; None when somebody has it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass  # collected between opening and locking
        os.close(lock)


def _trusted(path: str) -> str:
    """The files below `path`, of this boot."""
    tree = os.path.join(path, boot_id())
    if not os.path.isdir(tree):
        remove_tree(path)
        os.makedirs(tree, mode=0o700)
    return tree


def collect_contexts(root: str, *, everything: bool = False) -> int:
    """Remove what was not used lately, or all nobody uses; how many bytes that freed."""
    top = os.path.join(root, _DIRECTORY)
    if not os.path.isdir(top):
        return 0
    freed = kept = size = 0
    oldest = time.time() - _DAYS * 86400
    for used, path in sorted(_entries(top), reverse=True):
        here = 0 if everything else _size(path)
        if not everything and used > oldest and kept < _MOST and (not kept or size + here <= _BYTES):
            kept, size = kept + 1, size + here
            continue
        if (lock := _locked(f"{path}.lock")) is None:
            continue
        freed += remove_tree(path)
        os.unlink(f"{path}.lock")
        os.close(lock)
    return freed


def _entries(top: str) -> Iterator[tuple[float, str]]:
    for name in os.listdir(top):
        if name.endswith(".lock"):
            path = os.path.join(top, name)
            try:
                yield os.stat(path).st_mtime, path.removesuffix(".lock")
            except FileNotFoundError:
                pass  # collected by somebody else


def _size(path: str) -> int:
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                pass  # being received anew
    return total
