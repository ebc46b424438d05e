"""/dev of a container: the nodes and links every program expects, and the ones the plan adds."""

from __future__ import annotations

import os
import stat
from typing import Any

from runtime.sandbox.errors import SandboxError
from runtime.sandbox.paths import Root

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
# name, major, minor: runtime-spec config-linux.md, "Default Devices".
DEFAULT = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"))
LINKS = (*_LINKS, ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"))


class Node:
    """A device node made with mknod(2)."""

    def __init__(self, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int) -> None:
        self.path, self.kind, self.major, self.minor = path, kind, major, minor
        self.mode, self.uid, self.gid = mode, uid, gid

    def below(self, directory: str) -> Node:
        """The same one where `directory` is the root."""
        path = self.path.removeprefix(directory)
        return Node(path, self.kind, self.major, self.minor, self.mode, self.uid, self.gid)

    def describe(self) -> str:
        return f"make device {self.path}"

    def apply(self, root: Root) -> None:
        parent, _, name = self.path.rpartition("/")
        above = root.directory(parent)
        try:
            os.mknod(name, _TYPES[self.kind] | self.mode, os.makedev(self.major, self.minor), dir_fd=above)
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=above, follow_symlinks=False)
        except FileExistsError:
            self._must_be_it(name, above)
        finally:
            os.close(above)

    def _must_be_it(self, name: str, above: int) -> None:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != _TYPES[self.kind] or found.st_rdev != os.makedev(
            self.major, self.minor
        ):
            raise SandboxError(
                f"{self.path} exists and is another thing", operation=self.describe(), kind="input"
            )


def parse_device(entry: dict[str, Any]) -> Node:
    """An entry of linux.devices."""
    path, kind = entry.get("path", ""), entry.get("type", "")
    if kind not in _TYPES or not str(path).startswith("/"):
        raise SandboxError(f"device {path!r} of type {kind!r} cannot be made", kind="input")
    major, minor = entry.get("major", 0), entry.get("minor", 0)
    mode = entry.get("fileMode")
    mode = 0o666 if mode is None else mode & 0o7777
    return Node(path, kind, major, minor, mode, entry.get("uid") or 0, entry.get("gid") or 0)


def default_nodes() -> list[Node]:
    return [Node(f"/dev/{name}", "c", major, minor, 0o666, 0, 0) for name, major, minor in DEFAULT]


def make_links(root: Root, directory: str = "/dev") -> None:
    above = root.directory(directory)
    try:
        for name, target in LINKS:
            try:
                os.symlink(target, name, dir_fd=above)
            except FileExistsError:
                continue
    finally:
        os.close(above)
