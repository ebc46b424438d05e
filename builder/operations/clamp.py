"""Make times in a finished upper directory reproducible: whatever is newer than the epoch becomes the epoch (A-99)."""

from __future__ import annotations

import os


def clamp_times(directory: str, newest_ns: int) -> None:
    """Depth first, directories after what is in them."""
    with os.scandir(directory) as listing:
        entries = list(listing)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            clamp_times(entry.path, newest_ns)
        if entry.stat(follow_symlinks=False).st_mtime_ns > newest_ns:
            os.utime(entry.path, ns=(newest_ns, newest_ns), follow_symlinks=False)
