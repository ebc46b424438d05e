"""File systems a store may lie on that refuse this or that; all of them are gone at the end of the block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.linux import mounts


@contextmanager
def mounted(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> Iterator[Path]:
    mounts.mount(source, str(target), kind, flags, options)
    try:
        yield target
    finally:
        mounts.umount(str(target), mounts.MNT_DETACH)


@contextmanager
def on_overlay(directory: Path) -> Iterator[Path]:
    """An overlay, as the root of most containers is: no whiteouts can be made there, and no overlay mounted."""
    names = {each: directory / each for each in ("lower", "upper", "work", "merged")}
    for place in names.values():
        place.mkdir(parents=True)
    options = f"lowerdir={names['lower']},upperdir={names['upper']},workdir={names['work']}"
    with mounted("overlay", names["merged"], "overlay", options=options) as place:
        yield place


@contextmanager
def without_attributes(directory: Path) -> Iterator[Path]:
    """A file system without extended attributes."""
    directory.mkdir(parents=True)
    with mounted("ramfs", directory, "ramfs") as place:
        yield place


@contextmanager
def in_memory(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir(parents=True)
    with mounted("tmpfs", directory, "tmpfs", options=f"size={size}") as place:
        yield place
