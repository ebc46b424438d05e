"""The directory a layer is unpacked into, and where in it an entry belongs.

It belongs to us alone while this runs. Every path is resolved here, part by part: through links of this layer and of
the layers below, beneath the root, to a real directory of this layer, which is made where it is missing. What comes
out leads through real directories only and can be used as it is.
"""

from __future__ import annotations

import os
import stat

from runtime.errors import InvalidInput
from runtime.store.durable import remove_tree
from runtime.store.hiding import form_of
from runtime.store.layers.lowers import Lowers

_LINK_LIMIT = 40  # as in path_resolution(7)
_REMEMBERED = 10_000  # ways to directories


def joined(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


class Target:
    """Paths are relative to `root`, which is the empty path."""

    def __init__(self, root: bytes, lowers: Lowers) -> None:
        self._root, self._lowers = root, lowers
        self.form = form_of(root)
        self._resolved: dict[tuple[bytes, ...], bytes] = {(): b""}
        self._opaque: set[bytes] = set()
        self._times: dict[bytes, int] = {}

    def full(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def status(self, path: bytes) -> os.stat_result | None:
        """What this layer has at the path, if anything."""
        try:
            return os.lstat(self.full(path))
        except FileNotFoundError:
            return None

    def below(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """The lower layers' `path`, unless this layer hides it."""
        if not self._lowers or self._is_hidden(path):
            return None
        return self._lowers.find(path)

    def _is_hidden(self, path: bytes) -> bool:
        """Whether a directory on the way is opaque. There may be as many of these as a layer has entries."""
        if b"" in self._opaque:
            return True
        while path and self._opaque:
            if path in self._opaque:
                return True
            path = path.rpartition(b"/")[0]
        return False

    # --- resolving --------------------------------------------------------------------------------------------------

    def directory(self, parts: tuple[bytes, ...]) -> bytes:
        """The real directory that `parts` lead to, made where it is missing."""
        known = self._resolved.get(parts)
        if known is None:
            known = self._step(self.directory(parts[:-1]), parts[-1], 0)
            if len(self._resolved) > _REMEMBERED:
                self._forget()
            self._resolved[parts] = known
        return known

    def _step(self, parent: bytes, name: bytes, links: int) -> bytes:
        path = joined(parent, name)
        full, status = self.full(path), self.status(path)
        if status is None and (found := self.below(path)):
            full, status = found
        if status is not None and stat.S_ISLNK(status.st_mode):
            return self._follow(parent, os.readlink(full), links + 1)
        if status is not None and not stat.S_ISDIR(status.st_mode) and not self.form.is_whiteout(status):
            raise InvalidInput(f"the layer has entries below {os.fsdecode(path)!r}, which is no directory")
        self._make(path)
        return path

    def _follow(self, parent: bytes, target: bytes, links: int) -> bytes:
        """Where a link leads, beneath the root."""
        if links > _LINK_LIMIT:
            raise InvalidInput(f"too many links on the way to {os.fsdecode(target)!r} in the layer")
        at = b"" if target.startswith(b"/") else parent
        for part in target.split(b"/"):
            if part == b"..":
                at = at.rpartition(b"/")[0]
            elif part not in (b"", b"."):
                at = self._step(at, part, links)
        return at

    # --- directories ------------------------------------------------------------------------------------------------

    def make_directory(self, parts: tuple[bytes, ...]) -> bytes:
        """Make the directory an entry asks for, in place of whatever else has its name; its path."""
        path = joined(self.directory(parts[:-1]), parts[-1])
        self._make(path)
        if self._resolved.get(parts, path) != path:
            self._forget()  # it was a link of a lower layer until now
        return path

    def _make(self, path: bytes) -> None:
        """Make a directory unless there is one. One that is in lower layers too begins with their attributes."""
        full, status = self.full(path), self.status(path)
        if status is not None:
            if stat.S_ISDIR(status.st_mode):
                return
            os.unlink(full)
            self._forget()
        os.mkdir(full, 0o755)
        os.chmod(full, 0o755)  # whatever the umask
        if status is not None:
            self.set_opaque(path)  # what was there until now hid the lower layers' directory
        else:
            self._inherit(path, full)

    def _inherit(self, path: bytes, full: bytes) -> None:
        found = self.below(path)
        if found is None or not stat.S_ISDIR(found[1].st_mode):
            return
        below, status = found
        os.chown(full, status.st_uid, status.st_gid)
        os.chmod(full, stat.S_IMODE(status.st_mode))
        copy_xattrs(below, full)
        self._times[path] = status.st_mtime_ns

    def set_time(self, path: bytes, mtime_ns: int) -> None:
        """Of a directory; done at the end, because what is made in it changes it."""
        self._times[path] = mtime_ns

    def make_room(self, path: bytes) -> None:
        """An earlier entry of this layer with the same name goes."""
        status = self.status(path)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(self.full(path))
            return
        self._forget_times(path)
        remove_tree(os.fsdecode(self.full(path)))
        self._forget()

    def _forget_times(self, path: bytes) -> None:
        """Of a directory that goes, with those in it; no more is looked at than goes."""
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            self._times.pop(directory, None)
            with os.scandir(self.full(directory)) as entries:
                waiting += [
                    joined(directory, each.name) for each in entries if each.is_dir(follow_symlinks=False)
                ]

    def _forget(self) -> None:
        """What paths led through is no directory any more, or another one."""
        self._resolved = {(): b""}

    # --- hiding -----------------------------------------------------------------------------------------------------

    def hide(self, path: bytes) -> None:
        """The lower layers' `path` is gone; what this layer has there is not."""
        if not self._lowers:
            return
        status = self.status(path)
        if status is None:
            self.form.hide(self.full(path))
        elif stat.S_ISDIR(status.st_mode):
            self.set_opaque(path)

    def set_opaque(self, path: bytes) -> None:
        """Nothing that lower layers have in the directory shows."""
        self._opaque.add(path)
        if path and self._lowers:
            self.form.set_opaque(self.full(path))

    def finish(self) -> None:
        """Do what had to wait until everything is there."""
        if b"" in self._opaque:
            # Overlayfs ignores an opaque root: each of its entries is hidden instead.
            for name in sorted(self._lowers.names(b"")):
                self.hide(name)
        for path, mtime in self._times.items():
            status = self.status(path)
            if status is not None and stat.S_ISDIR(status.st_mode):
                os.utime(self.full(path), ns=(mtime, mtime))


def copy_xattrs(source: bytes, target: bytes) -> None:
    """All but overlayfs's own."""
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith("trusted."):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
