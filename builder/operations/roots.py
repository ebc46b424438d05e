"""The root a step works on, looked at without mounting it.

A `Root` is an upper directory over read-only lower ones; what hides what in them is said by `runtime.store.hiding`. COPY and WORKDIR write straight into the upper through it,
which is several times quicker than a mount and works where overlay cannot be mounted. Paths are relative to the root,
without a leading slash; no link ever leads outside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.operations.listings import DEEP, kind_of, look, may_hold
from runtime.errors import InvalidInput
from runtime.store.durable import remove_tree
from runtime.store.hiding import form_of

if TYPE_CHECKING:
    from builder.operations.feed import LayerFeed

LINK_LIMIT = 255
REMEMBERED = 256  # directories
_NOWHERE: tuple[str, ...] = ()


def clean(path: str) -> str:
    """`path` relative to the root: no leading slash, no `.`, and `..` stops at the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part and part != ".":
            parts.append(part)
    return "/".join(parts)


class Root:
    """An upper directory over lower ones, topmost first."""

    def __init__(self, upper: str, lowers: Sequence[str] = ()) -> None:
        self.upper = upper
        self._layers = (upper, *lowers)
        self._deep = len(lowers) > DEEP
        self._form = form_of(lowers[0] if lowers else upper)
        self._directories: dict[str, tuple[str, ...]] = {"": self._layers}
        self._touched: dict[
            str, tuple[int, int]
        ] = {}  # directory in the upper -> the times it shall end with

    # --- looking ---------------------------------------------------------------------------------------------

    def directories(self, path: str) -> tuple[str, ...]:
        """Where the directory `path` is made of, topmost first; empty when there is no such directory."""
        known = self._directories.get(path)
        if known is None:
            known = self._merge(path)
            self._directories[path] = known
        return known

    def _merge(self, path: str) -> tuple[str, ...]:
        parent, _, name = path.rpartition("/")
        found: list[str] = []
        for layer in self.directories(parent):
            place = f"{layer}/{name}"
            try:
                kind = self._kind(layer, name, place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not kind:
                break
            found.append(place)
            if kind == "opaque":
                break
        return tuple(found)

    def _kind(self, layer: str, name: str, place: str) -> str:
        """`listings.kind_of`; FileNotFoundError when there is nothing."""
        if not self._is_finished(layer):
            return look(self._form, place, os.lstat(place))
        if not may_hold(layer, name):
            raise FileNotFoundError(place)
        return kind_of(self._form, place)

    def _is_finished(self, place: str) -> bool:
        """Whether it is worth remembering what is there: in one of many layers that will not change."""
        return self._deep and not place.startswith(self.upper)

    def locate(self, path: str) -> str | None:
        """The host path of the topmost entry of that name (no link is followed), None when there is none."""
        if not path:
            return self._layers[0]
        parent, _, name = path.rpartition("/")
        for layer in self.directories(parent):
            if self._is_finished(layer) and not may_hold(layer, name):
                continue
            place = f"{layer}/{name}"
            try:
                status = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if self._form.is_whiteout(status) else place
        return None

    def lstat(self, path: str) -> os.stat_result | None:
        place = self.locate(path)
        return None if place is None else os.lstat(place)

    def resolve(self, path: str) -> str:
        """Follow every link of `path` within the root; what does not exist stays as written."""
        todo = [part for part in path.split("/") if part and part != "."][::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            here = "/".join([*done, part])
            place = self.locate(here)
            if place is None or not os.path.islink(place):
                done.append(part)
                continue
            links += 1
            if links > LINK_LIMIT:
                raise InvalidInput(f"too many levels of symbolic links in /{path}")
            target = os.readlink(place)
            if target.startswith("/"):
                done.clear()
            todo.extend([step for step in target.split("/") if step and step != "."][::-1])
        return "/".join(done)

    def read(self, path: str, limit: int) -> bytes | None:
        """A file of the root (links followed inside it), at most `limit` bytes; None when it is no file."""
        place = self.locate(self.resolve(path))
        if place is None:
            return None
        try:
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(handle, limit) if stat.S_ISREG(os.fstat(handle).st_mode) else None
        finally:
            os.close(handle)

    def is_fresh(self, path: str) -> bool:
        """True when the directory `path` is only in the upper: nothing below it needs to be looked up."""
        return all(place.startswith(self.upper) for place in self.directories(path))

    # --- changing --------------------------------------------------------------------------------------------

    def ensure(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime_ns: int) -> bool:
        """Make the directory `path` and missing parents; True when it was not there. Existing ones keep all attributes."""
        if self._directories.get(path):
            self.raise_up(path)
            return False
        created = False
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            if self.directories(here):
                self.raise_up(here)
                continue
            if self.locate(here) is not None:
                raise InvalidInput(f"cannot make the directory /{path}: /{here} is not a directory")
            self.make_directory(here, mode, uid, gid, mtime_ns)
            created = True
        return created

    def make_directory(self, path: str, mode: int, uid: int, gid: int, mtime_ns: int) -> str:
        """A new directory in the upper, where no entry of that name is visible."""
        parent = path.rpartition("/")[0]
        self.raise_up(parent)
        place = f"{self.upper}/{path}"
        hidden = _unlink_whiteout(place)
        os.mkdir(place, 0o700)
        if hidden:
            self._form.set_opaque(place)
        os.chown(place, uid, gid)
        os.chmod(place, mode)
        self._touched[path] = (mtime_ns, mtime_ns)
        self._directories[path] = (place,)
        return place

    def raise_up(self, path: str) -> str:
        """Have the existing directory `path` in the upper, with the attributes it has below (overlay's copy-up)."""
        place = f"{self.upper}/{path}" if path else self.upper
        places = self.directories(path)
        if not path:
            if path not in self._touched:
                status = os.stat(self.upper)
                self._touched[path] = (status.st_atime_ns, status.st_mtime_ns)
            return place
        if places and places[0] == place:
            if path not in self._touched:
                status = os.stat(place)
                self._touched[path] = (status.st_atime_ns, status.st_mtime_ns)
            return place
        self.raise_up(path.rpartition("/")[0])
        model = os.stat(places[0])
        os.mkdir(place, 0o700)
        copy_xattrs(places[0], place)
        os.chown(place, model.st_uid, model.st_gid)
        os.chmod(place, stat.S_IMODE(model.st_mode))
        self._touched[path] = (model.st_atime_ns, model.st_mtime_ns)
        self._directories[path] = (place, *places)
        return place

    def set_times(self, path: str, mtime_ns: int) -> None:
        """The time directory `path` of the upper shall have in the end."""
        self._touched[path] = (mtime_ns, mtime_ns)

    def clear(self, path: str) -> str:
        """Where to create the entry `path` in the upper, whose parent is there; what is under that name goes."""
        place = f"{self.upper}/{path}"
        found = self._directories.get(path)
        # Not remembered: there is one such name for each entry of an archive.
        if self._merge(path) if found is None else found:
            below = f"{path}/"
            for known in (self._touched, self._directories):
                for each in [name for name in known if name == path or name.startswith(below)]:
                    del known[each]
            self._directories[path] = ()
        if os.path.lexists(place):
            remove_tree(place)
        return place

    def rest(self) -> None:
        """Between two entries: have what is remembered not grow with the number of directories."""
        if len(self._directories) > REMEMBERED:
            self._directories = {"": self._layers}
        if len(self._touched) > REMEMBERED:
            self.settle()  # whoever writes to one of them again finds its times there

    def settle(self) -> None:
        """Give the directories that were written to their times; the last act of a step."""
        for path in sorted(self._touched, reverse=True):
            os.utime(f"{self.upper}/{path}", ns=self._touched[path])
        self._touched.clear()

    def describe(self, path: str, feed: LayerFeed) -> None:
        """Tell a layer that is being fed of the directory `path` and those above it, as they are in the upper."""
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            self.raise_up(here)  # an archive that was unpacked before this settled all it touched
            feed.existing(here, f"{self.upper}/{here}", self._touched[here][1])


def _unlink_whiteout(place: str) -> bool:
    try:
        os.unlink(place)
    except FileNotFoundError:
        return False
    return True


def copy_xattrs(source: str, target: str) -> None:
    """The extended attributes a layer carries: all but those of the overlay itself (and those the kernel makes up)."""
    for name in os.listxattr(source, follow_symlinks=False):
        if name.startswith(("user.", "security.capability")):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
