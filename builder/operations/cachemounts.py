"""`RUN --mount=type=cache`: directories that outlive builds and are in no layer (A-58).

`cachemounts/<id>/` holds `data` (what is mounted) and `lock`. A private mount that is in use gets a directory of its
own with a number; a locked one waits. Ids are named by what the user wrote, within the namespace of the build.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder.graph import RunMount
from runtime.cancel import Cancel
from runtime.store.store import Store

_PAUSE = 0.02


@contextmanager
def cache_mount(
    store: Store, mount: RunMount, namespace: str, fill: Callable[[str], None] | None, cancel: Cancel
) -> Iterator[str]:
    """The directory to mount, held as `sharing` says."""
    name = f"{namespace}/{mount.id}" if namespace else mount.id
    identity = identity_of(name)
    exclusive = mount.sharing in ("locked", "private")
    for number in range(10_000):
        place = os.path.join(store.root, "cachemounts", identity + (f"-{number}" if number else ""))
        os.makedirs(place, mode=0o711, exist_ok=True)
        handle = os.open(os.path.join(place, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(handle, exclusive, mount.sharing == "private", cancel):
                continue
            _note(store, os.path.basename(place), name)
            data = os.path.join(place, "data")
            _make(data, mount, fill)
            yield data
            return
        finally:
            os.close(handle)


def identity_of(name: str) -> str:
    """What its directory is called."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _lock(handle: int, exclusive: bool, give_up: bool, cancel: Cancel) -> bool:
    """Take the lock; with `give_up` only if it is free. flock(2) ends with the process."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if give_up:
                return False
            cancel.wait(_PAUSE)
            cancel.check()


def _make(data: str, mount: RunMount, fill: Callable[[str], None] | None) -> None:
    if os.path.isdir(data):
        return
    fresh = f"{data}.{os.getpid()}-{time.monotonic_ns()}"
    os.mkdir(fresh, 0o755)
    if fill is not None:
        fill(fresh)
    os.chown(fresh, mount.uid, mount.gid)
    os.chmod(fresh, 0o755 if mount.mode is None else mount.mode)
    try:
        os.rename(fresh, data)
    except OSError:
        # Another step with a shared mount was first.
        from runtime.store.durable import remove_tree

        remove_tree(fresh)


def _note(store: Store, identity: str, name: str) -> None:
    now = time.time_ns()
    with store.db.transaction() as connection:
        connection.execute(
            "INSERT INTO cache_mounts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET used = excluded.used",
            (identity, name, now, now),
        )
