"""The mounts of a container: OCI mount entries parsed into operations that describe and apply themselves.

Sources are opened on the host before the root changes (`prepare`), targets are found beneath the new root afterwards
(`apply`). Mounts are built detached, get their attributes, and only then become reachable, so nothing is ever visible
with fewer restrictions than it will have.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from runtime.linux import mounts as linux
from runtime.sandbox.copyup import copy_tree
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.paths import Root

# option -> (attributes set, attributes cleared); with an "r" in front: the same, recursively (mount_setattr).
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (linux.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, linux.MOUNT_ATTR_RDONLY),
    "nosuid": (linux.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, linux.MOUNT_ATTR_NOSUID),
    "nodev": (linux.MOUNT_ATTR_NODEV, 0),
    "dev": (0, linux.MOUNT_ATTR_NODEV),
    "noexec": (linux.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, linux.MOUNT_ATTR_NOEXEC),
    "noatime": (linux.MOUNT_ATTR_NOATIME, linux.MOUNT_ATTR__ATIME),
    "atime": (0, linux.MOUNT_ATTR__ATIME),
    "relatime": (linux.MOUNT_ATTR_RELATIME, linux.MOUNT_ATTR__ATIME),
    "norelatime": (0, 0),
    "strictatime": (linux.MOUNT_ATTR_STRICTATIME, linux.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, 0),
    "nodiratime": (linux.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, linux.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (linux.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, linux.MOUNT_ATTR_NOSYMFOLLOW),
}
_PROPAGATION = {
    "private": linux.MS_PRIVATE,
    "slave": linux.MS_SLAVE,
    "shared": linux.MS_SHARED,
    "unbindable": linux.MS_UNBINDABLE,
}
_IGNORED = frozenset(
    ("defaults", "async", "loud", "nomand", "nolazytime", "noiversion", "z", "Z", "bind", "rbind")
)
_PSEUDO = frozenset(("proc", "sysfs", "mqueue", "cgroup", "cgroup2"))


class Options:
    """OCI mount options, sorted by the call that takes them."""

    def __init__(self, words: list[str], where: str) -> None:
        self.add = self.clear = self.recursive_add = self.recursive_clear = 0
        self.propagation = 0
        self.propagation_recursive = False
        self.bind = "bind" in words or "rbind" in words
        self.recursive = "rbind" in words
        self.copy_up = "tmpcopyup" in words
        self.idmap = "idmap" in words or "ridmap" in words
        self.data: list[tuple[str, str | None]] = []
        for word in words:
            self._take(word, where)

    def _take(self, word: str, where: str) -> None:
        if word in _ATTRIBUTES:
            add, clear = _ATTRIBUTES[word]
            self.add, self.clear = (self.add & ~clear) | add, (self.clear & ~add) | clear
        elif word[:1] == "r" and word[1:] in _ATTRIBUTES:
            add, clear = _ATTRIBUTES[word[1:]]
            self.recursive_add, self.recursive_clear = self.recursive_add | add, self.recursive_clear | clear
        elif word.removeprefix("r") in _PROPAGATION:
            self.propagation = _PROPAGATION[word.removeprefix("r")]
            self.propagation_recursive = word not in _PROPAGATION
        elif word in _IGNORED or word in ("tmpcopyup", "idmap", "ridmap"):
            return
        elif self.bind:
            raise SandboxError(f"unknown option {word!r} of bind mount {where}", kind="input")
        else:
            key, equals, value = word.partition("=")
            self.data.append((key, value if equals else None))


def make_filesystem(kind: str, source: str, data: list[tuple[str, str | None]], attributes: int) -> int:
    """A detached mount of a new file system; the caller closes."""
    context = linux.fsopen(kind)
    try:
        if source:
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", source)
        for key, value in data:
            command = linux.FSCONFIG_SET_FLAG if value is None else linux.FSCONFIG_SET_STRING
            linux.fsconfig(context, command, key, value)
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context, attributes)
    finally:
        os.close(context)


def attach(tree: int, root: Root, target: str) -> None:
    """Make a detached mount reachable at `target`, and close it."""
    try:
        place = root.place(target, tree)
        try:
            linux.move_mount(tree, place)
        finally:
            os.close(place)
    finally:
        os.close(tree)


class FileSystem:
    """A new instance of proc, sysfs, tmpfs, mqueue, devpts or any other file system the kernel knows."""

    def __init__(self, kind: str, source: str, target: str, options: Options) -> None:
        self.kind, self.source, self.target, self.options = kind, source, target, options

    def describe(self) -> str:
        return f"mount {self.kind} on {self.target}"

    def prepare(self) -> None:
        """Nothing of the host is needed."""

    def apply(self, root: Root) -> None:
        options = self.options
        tree = make_filesystem(self.kind, self.source or self.kind, options.data, options.add)
        if options.propagation:
            linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, propagation=options.propagation)
        if options.copy_up:
            self._copy_up(tree, root)
        attach(tree, root, self.target)

    def _copy_up(self, tree: int, root: Root) -> None:
        """Fill the tmpfs with what the image has at this place (runc's `tmpcopyup`)."""
        place = root.directory(self.target)
        try:
            copy_tree(place, tree)
        finally:
            os.close(place)


class Bind:
    """A directory or file of the host."""

    def __init__(self, source: str, target: str, options: Options) -> None:
        self.source, self.target, self.options = source, target, options
        self.tree = -1

    def describe(self) -> str:
        readonly = " read-only" if self.options.add & linux.MOUNT_ATTR_RDONLY else ""
        return f"bind {self.source} on {self.target}{readonly}"

    def prepare(self) -> None:
        """Clone the source's mount and give the clone its attributes while nobody can reach it."""
        options = self.options
        flags = (
            linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | (linux.AT_RECURSIVE if options.recursive else 0)
        )
        self.tree = linux.open_tree(linux.AT_FDCWD, self.source, flags)
        empty = linux.AT_EMPTY_PATH
        recursive = empty | linux.AT_RECURSIVE
        # A clone has its source's propagation; by default nothing the container mounts may reach the host.
        kind, deep = (
            options.propagation or linux.MS_PRIVATE,
            options.propagation_recursive or not options.propagation,
        )
        linux.mount_setattr(self.tree, "", recursive if deep else empty, propagation=kind)
        if options.add or options.clear:
            linux.mount_setattr(self.tree, "", empty, add=options.add, clear=options.clear)
        if options.recursive_add or options.recursive_clear:
            add, clear = options.recursive_add, options.recursive_clear
            linux.mount_setattr(self.tree, "", recursive, add=add, clear=clear)

    def apply(self, root: Root) -> None:
        tree, self.tree = self.tree, -1
        attach(tree, root, self.target)


class CgroupV1:
    """/sys/fs/cgroup as containers of v1 hosts have it: a tmpfs with one mount per hierarchy.

    `own` maps a hierarchy's mount to the container's directory in it, for containers without a cgroup namespace.
    """

    def __init__(self, target: str, options: Options, hierarchies: list[tuple[str, str]], own: str) -> None:
        self.target, self.options, self.hierarchies, self.own = target, options, hierarchies, own

    def describe(self) -> str:
        return f"mount cgroup on {self.target}"

    def prepare(self) -> None:
        """Bound later: the container's directories do not exist yet."""

    def apply(self, root: Root) -> None:
        data: list[tuple[str, str | None]] = [("mode", "755")]
        common = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
        attach(make_filesystem("tmpfs", "tmpfs", data, common), root, self.target)
        for name, controllers in self.hierarchies:
            attach(self._hierarchy(controllers), root, f"{self.target}/{name}")
        self._seal(root, common)

    def _hierarchy(self, controllers: str) -> int:
        words = [(word, None) for word in controllers.split(",") if not word.startswith("name=")]
        data: list[tuple[str, str | None]] = list(words)
        if controllers.startswith("name="):
            data = [("none", None), ("name", controllers.removeprefix("name="))]
        return make_filesystem("cgroup", "cgroup", data, self.options.add)

    def _seal(self, root: Root, common: int) -> None:
        """The tmpfs itself becomes read-only once its mount points are made, as Docker's is."""
        if self.options.add & linux.MOUNT_ATTR_RDONLY:
            place = root.find(self.target)
            try:
                linux.mount_setattr(place, "", linux.AT_EMPTY_PATH, add=linux.MOUNT_ATTR_RDONLY | common)
            finally:
                os.close(place)


Operation = FileSystem | Bind | CgroupV1


def parse_mount(entry: dict[str, Any], hierarchies: list[tuple[str, str]], own_cgroup: str = "") -> Operation:
    """One OCI mount entry. `hierarchies`: the host's cgroup v1 hierarchies, empty on a v2 host."""
    target, kind = entry["destination"], entry.get("type") or ""
    options = Options(entry.get("options") or [], target)
    if options.idmap or entry.get("uidMappings") or entry.get("gidMappings"):
        raise SandboxError(f"id-mapped mount on {target} is not supported", kind="unsupported")
    source = entry.get("source") or ""
    if options.bind or kind in ("bind", "none"):
        if not source.startswith("/"):
            raise SandboxError(
                f"source {source!r} of the bind on {target} is not an absolute path", kind="input"
            )
        return Bind(source, target, options)
    if kind in ("cgroup", "cgroup2"):
        if hierarchies:
            return CgroupV1(target, options, hierarchies, own_cgroup)
        return FileSystem("cgroup2", "cgroup", target, options)
    if not kind:
        raise SandboxError(f"the mount on {target} has no type", kind="input")
    return FileSystem(kind, source, target, options)


def is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.stat(descriptor).st_mode)
