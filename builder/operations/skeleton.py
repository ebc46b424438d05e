"""The mount points of a RUN, as a lower directory beneath everything else.

A mount needs something to be mounted on. Were it made in the root, every step would leave `/proc` or `/run/secrets/x`
in its layer; as the lowest lower directory it is there during the step, hides nothing, and is in no layer. (BuildKit
makes such stubs and removes them again.) Where a layer hides it, what the sandbox made is cleaned away afterwards.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from builder.operations.roots import Root, clean

STANDARD = (("proc", True), ("sys", True), ("dev", True), ("etc/hosts", False), ("etc/resolv.conf", False))
Target = tuple[str, bool]  # path below the root, is a directory


def make_skeleton(directory: str, targets: Iterable[Target]) -> str:
    """The directory with all mount points in it; made once for each set of them."""
    wanted = [*STANDARD, *((clean(path), is_directory) for path, is_directory in targets)]
    os.makedirs(directory, mode=0o755, exist_ok=True)
    for path, is_directory in wanted:
        place = os.path.join(directory, path)
        parent = place if is_directory else os.path.dirname(place)
        os.makedirs(parent, mode=0o755, exist_ok=True)
        if not is_directory:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    return directory


def clean_stubs(upper: str, lowers: Sequence[str], targets: Iterable[Target]) -> None:
    """Remove empty mount points from the upper that were not in the root before, and the directories made for them."""
    before, after = Root(os.devnull, lowers), Root(upper, lowers)
    meant = [after.resolve(clean(path)) for path, _ in targets]  # a mount point can lie behind a link
    for here in (*(path for path, _ in STANDARD), *meant):
        # Whether it is in the upper is one look; whether it was there before is one for each layer.
        while here and os.path.lexists(f"{upper}/{here}") and before.locate(here) is None:
            if not _remove_empty(upper, here):
                break
            here = here.rpartition("/")[0]


def _remove_empty(upper: str, path: str) -> bool:
    place = f"{upper}/{path}"
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    parent = os.path.dirname(place)
    times = os.stat(parent)
    if stat.S_ISDIR(status.st_mode):
        if os.listdir(place):
            return False
        os.rmdir(place)
    elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
        os.unlink(place)
    else:
        return False
    os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    return True
