"""How much of the disk the store uses, by what it is used for (`docker system df`). Hard links count once.

A snapshot counts as an image's when an image's layers lead to it, else as build cache. What no container's image leads
to could be removed: that is the reclaimable part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from registry_client.values import frozen

if TYPE_CHECKING:
    from runtime.store.store import Store

_OF_IMAGE = """SELECT (SELECT c.snapshot FROM chains c JOIN snapshots s ON s.id = c.snapshot
                       WHERE c.chain_id = l.chain_id ORDER BY s.created, s.id LIMIT 1) AS snapshot, l.image
               FROM image_layers l"""


@frozen
class Usage:
    """How many there are, how many are in use, the bytes they take and those that could be had back."""

    kind: str
    count: int
    active: int
    size: int
    reclaimable: int


def usage(store: Store, *, running: Collection[str] = (), mounted: Collection[str] = ()) -> tuple[Usage, ...]:
    """Images, containers, volumes, build cache, unfinished things. `running` containers and `mounted` volumes are active."""
    images, cache = _images(store)
    containers = _sizes(os.path.join(store.root, "containers"))
    volumes = _sizes(os.path.join(store.root, "volumes"))
    unfinished = _sizes(os.path.join(store.root, "ingest")) | _sizes(os.path.join(store.root, "drafts"))
    return (
        images,
        Usage("Containers", len(containers), *_active(containers, running)),
        Usage("Local volumes", len(volumes), *_active(volumes, mounted)),
        cache,
        Usage("Unfinished", len(unfinished), 0, sum(unfinished.values()), 0),
    )


def _images(store: Store) -> tuple[Usage, Usage]:
    from runtime.store.collect import roots

    with store.db.transaction() as connection:
        used = roots(connection, "image")
        needed = roots(connection, "snapshot", ["roots_containers"])
        rows = connection.execute(_OF_IMAGE).fetchall()
        known = {row["id"] for row in connection.execute("SELECT id FROM images")}
    mine = {row["snapshot"] for row in rows}
    kept = {row["snapshot"] for row in rows if row["image"] in used} | needed
    # What a snapshot that stays shares with one that could go would not come back.
    snapshots = _sizes(
        os.path.join(store.root, "snapshots"), lambda name: (name not in kept, name not in mine)
    )
    blobs = sum(store.content.size(digest) for digest in store.content.digests())
    total = sum(size for each, size in snapshots.items() if each in mine)
    free = sum(size for each, size in snapshots.items() if each in mine and each not in kept)
    rest = {each: size for each, size in snapshots.items() if each not in mine}
    records = sum(size for each, size in rest.items() if each not in needed)
    cachemounts = _sizes(os.path.join(store.root, "cachemounts"))
    cache = sum(rest.values()) + sum(cachemounts.values())
    return (
        Usage("Images", len(known), len(known & used), total + blobs, free),
        Usage("Build cache", len(rest) + len(cachemounts), 0, cache, records + sum(cachemounts.values())),
    )


def _active(sizes: dict[str, int], used: Collection[str]) -> tuple[int, int, int]:
    """How many are in use, all bytes, and those of the others."""
    idle = sum(size for name, size in sizes.items() if name not in used)
    return len(sizes.keys() & set(used)), sum(sizes.values()), idle


def size_of(*paths: str) -> int:
    """Bytes on the disk of trees; a file that is in several counts once."""
    seen: set[tuple[int, int]] = set()
    return sum(_size(path, seen) for path in paths)


def _sizes(directory: str, rank: Callable[[str], tuple[bool, ...]] = lambda name: ()) -> dict[str, int]:
    """The bytes of each thing in a directory; a file that several have counts for the first of them."""
    seen: set[tuple[int, int]] = set()
    names = os.listdir(directory) if os.path.isdir(directory) else []
    names.sort(key=lambda name: (rank(name), name))
    return {name: _size(os.path.join(directory, name), seen) for name in names}


def _size(path: str, seen: set[tuple[int, int]]) -> int:
    try:
        status = os.lstat(path)
        if not os.path.isdir(path) or os.path.islink(path):
            return _blocks(status, seen)
        with os.scandir(path) as entries:
            found = [
                (each.path, each.is_dir(follow_symlinks=False), each.stat(follow_symlinks=False))
                for each in entries
            ]
    except FileNotFoundError:
        return 0  # it went while we looked
    return status.st_blocks * 512 + sum(
        _size(full, seen) if is_directory else _blocks(status, seen) for full, is_directory, status in found
    )


def _blocks(status: os.stat_result, seen: set[tuple[int, int]]) -> int:
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1:
        if key in seen:
            return 0
        seen.add(key)
    return status.st_blocks * 512
