"""Put a finished layer's files into another draft as hard links: same inodes, no data moved."""

from __future__ import annotations

import os
import stat

from builder.operations.roots import copy_xattrs
from runtime.store.hiding import Form, form_of


def link_tree(source: str, target: str) -> None:
    """`target` (an empty upper directory) gets everything `source` has, in the same form."""
    _link(source, target, form_of(source))


def _link(source: str, target: str, form: Form) -> None:
    with os.scandir(source) as listing:
        entries = list(listing)
    for entry in entries:
        place = f"{target}/{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            os.link(entry.path, place, follow_symlinks=False)
            continue
        os.mkdir(place, 0o700)
        _link(entry.path, place, form)
        _like(entry.path, place, form)


def _like(source: str, target: str, form: Form) -> None:
    status = os.stat(source)
    copy_xattrs(source, target)
    if form.is_opaque(source) and not form.is_opaque(target):
        form.set_opaque(target)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
