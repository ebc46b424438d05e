"""A mount namespace of our own, so that what we mount dies with us, also by kill -9."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runtime.linux import mounts, namespaces

if TYPE_CHECKING:
    from runtime.sandbox.spawner import Spawner


def private_mounts(spawner: Spawner | None = None) -> None:
    """Leave the host's mount namespace; single-threaded callers only (unshare(2)).

    Everything becomes a slave: the host's later mounts still appear here, ours never there. A spawner that already
    runs must follow, or it could not find what we mount.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
    if spawner is not None:
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            spawner.follow_mounts(own)
        finally:
            os.close(own)
