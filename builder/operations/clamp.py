"""Make times in a finished upper directory reproducible: whatever is newer than the epoch becomes the epoch (A-99)."""

from __future__ import annotations

import os


def clamp_times(directory: str, newest_ns: int) -> None:
    """Everything below `directory`, and itself. Setting a time changes no directory's own, so any order will do."""
    waiting = [directory]
    _clamp(directory, os.stat(directory), newest_ns)
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                _clamp(entry.path, entry.stat(follow_symlinks=False), newest_ns)


def _clamp(path: str, status: os.stat_result, newest_ns: int) -> None:
    if status.st_mtime_ns > newest_ns:
        os.utime(path, ns=(newest_ns, newest_ns), follow_symlinks=False)
