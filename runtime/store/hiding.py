"""What hides what: how a layer's directory says that something of the layers below it is gone.

There are two ways, and a layer's directory is named after the one it uses, so whoever has its path can read it:

    fs         overlay form, which the kernel merges: a character device 0/0 (a whiteout) hides its name, the attribute
               `trusted.overlay.opaque` all that is below its directory (Documentation/filesystems/overlayfs.rst)
    fs-plain   plain form, for file systems that hold neither, such as an overlay itself: a socket hides its name, and a
               socket called `.wh..wh..opq` in a directory all that is below it

A socket, because no layer ever holds one (a tar cannot), every file system of Unix makes one without a privilege, and it has
the hidden name itself: one lstat tells a whiteout in either form. Image-spec's `.wh.NAME` files would need a second look
for every name, and have no room for names of more than 251 bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import AnyStr

_OPAQUE = "trusted.overlay.opaque"
_MARK = ".wh..wh..opq"


class Form:
    """Overlay form. Paths are str or bytes; no link is followed."""

    directory = "fs"

    def is_whiteout(self, status: os.stat_result) -> bool:
        """Whether an entry says that its name is gone (or, in plain form, is its directory's mark)."""
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def hide(self, path: AnyStr) -> None:
        """Make a whiteout where nothing is."""
        os.mknod(path, stat.S_IFCHR, 0)

    def is_opaque(self, directory: AnyStr) -> bool:
        """Whether nothing below the directory shows in it."""
        try:
            return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
        except OSError:
            return False

    def may_be_opaque(self, attributes: Sequence[str]) -> bool:
        """False when the names of the directory's extended attributes say that it is not."""
        return _OPAQUE in attributes

    def set_opaque(self, directory: AnyStr) -> None:
        os.setxattr(directory, _OPAQUE, b"y")

    def is_mark(self, name: bytes) -> bool:
        """Whether a whiteout of that name is no whiteout, but the mark of the directory it is in."""
        return False


class _Plain(Form):
    directory = "fs-plain"

    def is_whiteout(self, status: os.stat_result) -> bool:
        return stat.S_ISSOCK(status.st_mode)

    def hide(self, path: AnyStr) -> None:
        os.mknod(path, stat.S_IFSOCK | 0o600)

    def is_opaque(self, directory: AnyStr) -> bool:
        try:
            return stat.S_ISSOCK(os.lstat(_mark_in(directory)).st_mode)
        except OSError:
            return False

    def may_be_opaque(self, attributes: Sequence[str]) -> bool:
        return True

    def set_opaque(self, directory: AnyStr) -> None:
        mark = _mark_in(directory)
        times = os.stat(directory)
        try:
            os.mknod(mark, stat.S_IFSOCK | 0o600)
        except FileExistsError:
            if not stat.S_ISSOCK(os.lstat(mark).st_mode):
                raise
        # As an attribute would: the directory's own time stays.
        os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))

    def is_mark(self, name: bytes) -> bool:
        return name == _MARK.encode()


def _mark_in(directory: AnyStr) -> AnyStr:
    return os.path.join(directory, _MARK if isinstance(directory, str) else _MARK.encode())


OVERLAY, PLAIN = Form(), _Plain()
FORMS = {form.directory: form for form in (OVERLAY, PLAIN)}


def form_of(directory: str | bytes) -> Form:
    """The form of a layer's directory. Any other directory has no marks in it, and overlay form sees none there."""
    ending = "/" + PLAIN.directory
    is_plain = (
        directory.endswith(ending) if isinstance(directory, str) else directory.endswith(ending.encode())
    )
    return PLAIN if is_plain else OVERLAY
