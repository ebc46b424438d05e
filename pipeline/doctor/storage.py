"""The store's file system and the room that is left."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Level
from pipeline.doctor.host import Host

# What has no owners and modes of files.
_UNFIT = ("vfat", "exfat", "msdos", "fuseblk")
# What an overlay's upper directory is commonly refused on (Documentation/filesystems/overlayfs.rst).
_REFUSING = ("overlay", "nfs", "nfs4", "cifs", "smb3", "9p", "ntfs3", "ecryptfs", "virtiofs")
_SLOWER = "steps and containers copy their roots, which is slower"
_LOW, _SCARCE = 10 << 30, 1 << 30


def overlay(host: Host) -> Iterator[Finding]:
    known = host.read("/proc/filesystems").split()
    if "overlay" in known:
        yield Finding("overlayfs", Level.OK, "available")
    elif host.exists("/proc/modules"):
        yield Finding("overlayfs", Level.LIMITED, f"not loaded: {_SLOWER}", "`modprobe overlay`")
    else:
        hint = "use a kernel with CONFIG_OVERLAY_FS"
        yield Finding("overlayfs", Level.LIMITED, f"not in this kernel: {_SLOWER}", hint)


def store(host: Host) -> Iterator[Finding]:
    kind, point = _file_system(host)
    where = f"{host.store} on {kind or 'an unknown file system'} ({point})"
    # A store says what was found out when it was first used.
    recorded = host.read(os.path.join(host.store, "filesystem")).strip().split(":", 3)[3:]
    refused = any(recorded) if recorded else kind in _REFUSING or kind.startswith("fuse.")
    hint = "put it on a local file system such as ext4 or xfs with PIPE_ROOT"
    if kind in _UNFIT:
        yield Finding("store", Level.BROKEN, f"{where}, which cannot hold layers", hint)
    elif refused:
        yield Finding("store", Level.LIMITED, f"{where}, which carries no overlay: {_SLOWER}", hint)
    elif kind == "tmpfs":
        yield Finding("store", Level.NOTE, f"{where}, so it is gone at the next boot and takes up memory")
    else:
        yield Finding("store", Level.OK, where)


def _file_system(host: Host) -> tuple[str, str]:
    """(type, mount point) of what the store is on: the last mount on the longest path above it."""
    path = os.path.realpath(host.store)
    best = ("", "")
    for line in host.read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace(r"\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[1]):
            best = (after.split()[0], point)
    return best


def space(host: Host) -> Iterator[Finding]:
    place = host.file(host.store)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    facts = os.statvfs(place)
    free = facts.f_bavail * facts.f_frsize
    detail = f"{free / 1e9:.1f} GB free"
    if facts.f_files and facts.f_favail < 10_000:
        yield Finding(
            "disk space",
            Level.LIMITED,
            f"{facts.f_favail} inodes left",
            "remove files, or `pipe system prune`",
        )
    if free < _SCARCE:
        yield Finding("disk space", Level.LIMITED, detail, "remove files, or `pipe system prune`")
    elif free < _LOW:
        yield Finding("disk space", Level.NOTE, detail, "`pipe system prune` removes what is not used")
    else:
        yield Finding("disk space", Level.OK, detail)


CHECKS = (overlay, store, space)
