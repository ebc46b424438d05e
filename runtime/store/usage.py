"""How much of the disk the store uses, by what it is used for. Hard links count once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.store.store import Store

_PLACES = ("blobs", "snapshots", "containers", "volumes", "cachemounts", "runs", "ingest", "drafts")


@dataclass(frozen=True, slots=True)
class Usage:
    """A directory of the store: how many things are in it and the bytes they take on the disk."""

    place: str
    count: int
    size: int


def usage(store: Store) -> tuple[Usage, ...]:
    """Every part of the store that grows."""
    return tuple(_measure(store.root, place) for place in _PLACES)


def size_of(path: str) -> int:
    """Bytes on the disk of a tree."""
    return _size(path, set())


def _measure(root: str, place: str) -> Usage:
    directory = os.path.join(root, place)
    names = os.listdir(directory) if os.path.isdir(directory) else []
    if place == "blobs":
        names = [name for each in names for name in os.listdir(os.path.join(directory, each))]
    return Usage(place, len(names), _size(directory, set()))


def _size(path: str, seen: set[tuple[int, int]]) -> int:
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    key = (status.st_dev, status.st_ino)
                    if key in seen:
                        continue
                    seen.add(key)
                total += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    total += _size(entry.path, seen)
    except (FileNotFoundError, NotADirectoryError):
        pass  # it went while we looked
    return total
