"""What the directories of finished layers hold, remembered from step to step.

A name is looked for in every layer of a root, and with hundreds of layers nearly all lack it: that is a system call for
each, at every step. Finished layers never change, so a directory of theirs is listed once and answers ever after. Without
it a build of n steps takes time by the square of n. The upper of a step is never asked here.
"""

from __future__ import annotations

import os
import stat

from runtime.store.hiding import Form

DEEP = 16  # layers from which on it pays
_LONG = 1 << 18  # bytes of a directory itself: some thousand names
_MOST = 10_000  # directories

_names: dict[str, frozenset[str] | None] = {}
_kinds: dict[str, str] = {}


def may_hold(directory: str, name: str) -> bool:
    """False when the directory of a finished layer has no entry of that name."""
    try:
        names = _names[directory]
    except KeyError:
        names = _names[directory] = _list(directory)
        _forget_if_too_many(_names)
    return names is None or name in names


def kind_of(form: Form, place: str) -> str:
    """Of an entry of a finished layer: "directory", "opaque" for one that hides what is below it, "" for anything else."""
    try:
        return _kinds[place]
    except KeyError:
        kind = _kinds[place] = look(form, place, os.lstat(place))
        _forget_if_too_many(_kinds)
        return kind


def look(form: Form, place: str, status: os.stat_result) -> str:
    """`kind_of` without remembering."""
    if not stat.S_ISDIR(status.st_mode):
        return ""
    return "opaque" if form.is_opaque(place) else "directory"


def _list(directory: str) -> frozenset[str] | None:
    """None when it is too long to be kept, or no directory."""
    try:
        if os.stat(directory).st_size > _LONG:
            return None
        return frozenset(os.listdir(directory))
    except OSError:
        return None


def _forget_if_too_many(known: dict[str, frozenset[str] | None] | dict[str, str]) -> None:
    if len(known) > _MOST:
        known.clear()
