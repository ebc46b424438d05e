"""The mounts of a container: OCI mount entries parsed into operations that describe and apply themselves.

Sources are opened on the host before the root changes (`prepare`), targets are found beneath the new root afterwards
(`apply`). Mounts are built detached, get their attributes, and only then become reachable, so nothing is ever visible
with fewer restrictions than it will have.
"""

from __future__ import annotations

import os
from typing import Any

from runtime.linux import mounts as linux
from runtime.sandbox.copyup import copy_tree
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.paths import Root

# option -> (attributes set, attributes cleared, mount flag); with an "r" in front: recursively (mount_setattr).
_ATTRIBUTES: dict[str, tuple[int, int, int]] = {
    "ro": (linux.MOUNT_ATTR_RDONLY, 0, linux.MS_RDONLY),
    "rw": (0, linux.MOUNT_ATTR_RDONLY, linux.MS_RDONLY),
    "nosuid": (linux.MOUNT_ATTR_NOSUID, 0, linux.MS_NOSUID),
    "suid": (0, linux.MOUNT_ATTR_NOSUID, linux.MS_NOSUID),
    "nodev": (linux.MOUNT_ATTR_NODEV, 0, linux.MS_NODEV),
    "dev": (0, linux.MOUNT_ATTR_NODEV, linux.MS_NODEV),
    "noexec": (linux.MOUNT_ATTR_NOEXEC, 0, linux.MS_NOEXEC),
    "exec": (0, linux.MOUNT_ATTR_NOEXEC, linux.MS_NOEXEC),
    "noatime": (linux.MOUNT_ATTR_NOATIME, linux.MOUNT_ATTR__ATIME, linux.MS_NOATIME),
    "atime": (0, linux.MOUNT_ATTR__ATIME, 0),
    "relatime": (linux.MOUNT_ATTR_RELATIME, linux.MOUNT_ATTR__ATIME, linux.MS_RELATIME),
    "norelatime": (0, 0, 0),
    "strictatime": (linux.MOUNT_ATTR_STRICTATIME, linux.MOUNT_ATTR__ATIME, linux.MS_STRICTATIME),
    "nostrictatime": (0, 0, 0),
    "nodiratime": (linux.MOUNT_ATTR_NODIRATIME, 0, linux.MS_NODIRATIME),
    "diratime": (0, linux.MOUNT_ATTR_NODIRATIME, linux.MS_NODIRATIME),
    "nosymfollow": (linux.MOUNT_ATTR_NOSYMFOLLOW, 0, linux.MS_NOSYMFOLLOW),
    "symfollow": (0, linux.MOUNT_ATTR_NOSYMFOLLOW, linux.MS_NOSYMFOLLOW),
}
_SUPERBLOCK = {"sync": linux.MS_SYNCHRONOUS, "dirsync": linux.MS_DIRSYNC, "lazytime": linux.MS_LAZYTIME}
PROPAGATION = {
    "private": linux.MS_PRIVATE,
    "slave": linux.MS_SLAVE,
    "shared": linux.MS_SHARED,
    "unbindable": linux.MS_UNBINDABLE,
}
_IGNORED = frozenset(
    ("defaults", "async", "loud", "nomand", "nolazytime", "noiversion", "z", "Z", "bind", "rbind")
)
_PSEUDO = frozenset(("proc", "sysfs", "mqueue", "cgroup", "cgroup2"))
# What needs nothing but namespaces that a first process is born with. (sysfs shows a network namespace.)
_WITHOUT_ROOT = frozenset(("proc", "tmpfs", "devpts", "mqueue"))


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
        self.superblock = any(word in _SUPERBLOCK for word in words)
        self.flags = 0
        self.data: list[str] = []
        for word in words:
            self._take(word, where)

    def _take(self, word: str, where: str) -> None:
        if word in _ATTRIBUTES:
            add, clear, flag = _ATTRIBUTES[word]
            self.add, self.clear = (self.add & ~clear) | add, (self.clear & ~add) | clear
            self.flags = self.flags | flag if add or word == "relatime" else self.flags & ~flag
        elif word in _SUPERBLOCK:
            self.flags |= _SUPERBLOCK[word]
        elif word[:1] == "r" and word[1:] in _ATTRIBUTES:
            add, clear, _ = _ATTRIBUTES[word[1:]]
            self.recursive_add, self.recursive_clear = self.recursive_add | add, self.recursive_clear | clear
        elif word.removeprefix("r") in PROPAGATION:
            self.propagation = PROPAGATION[word.removeprefix("r")]
            self.propagation_recursive = word not in PROPAGATION
        elif word in _IGNORED or word in ("tmpcopyup", "idmap", "ridmap"):
            return
        elif self.bind:
            raise SandboxError(f"unknown option {word!r} of bind mount {where}", kind="input")
        else:
            self.data.append(word)


def mount_at(place: int, kind: str, source: str, flags: int, data: str) -> None:
    """mount(2) exactly on the directory behind a descriptor: the current directory is the one path nobody can redirect."""
    os.fchdir(place)
    linux.mount(source, ".", kind, flags, data)


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


def detached(kind: str, source: str, options: Options, words: list[str]) -> int:
    """A new instance of a file system that is reachable by its descriptor alone; the caller closes."""
    context = linux.fsopen(kind)
    try:
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", source)
        for word in [*words, *(("ro",) if options.flags & linux.MS_RDONLY else ())]:
            key, equals, value = word.partition("=")
            if equals:
                linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, value)
            else:
                linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, key)
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context, options.add)
    finally:
        os.close(context)


class FileSystem:
    """A new instance of proc, sysfs, tmpfs, mqueue, devpts or any other file system the kernel knows."""

    def __init__(self, kind: str, source: str, target: str, options: Options) -> None:
        self.kind, self.source, self.target, self.options = kind, source, target, options
        self.tree = -1  # made ahead

    def describe(self) -> str:
        return f"mount {self.kind} on {self.target}"

    def prepare(self) -> None:
        """Nothing of the host is needed."""

    def make_ahead(self) -> bool:
        """Make it before there is a root, if that can be done."""
        options = self.options
        if self.kind in _WITHOUT_ROOT and not (options.copy_up or options.propagation or options.superblock):
            self.tree = detached(self.kind, self.source or self.kind, options, options.data)
        return self.tree >= 0

    def apply(self, root: Root) -> None:
        if self.tree >= 0:
            tree, self.tree = self.tree, -1
            attach(tree, root, self.target)
            return
        options = self.options
        place = root.directory(self.target)
        try:
            mount_at(place, self.kind, self.source or self.kind, options.flags, ",".join(options.data))
            if options.copy_up or options.propagation:
                self._finish(place, root)
        finally:
            os.close(place)

    def _finish(self, covered: int, root: Root) -> None:
        """What needs the new mount itself. `tmpcopyup` (runc): a tmpfs starts with what the image has there."""
        mounted = root.find(self.target)
        try:
            if self.options.copy_up:
                copy_tree(covered, mounted)
            if propagation := self.options.propagation:
                linux.mount_setattr(mounted, "", linux.AT_EMPTY_PATH, propagation=propagation)
        finally:
            os.close(mounted)


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
    """/sys/fs/cgroup as containers of v1 hosts have it: a tmpfs with one mount per hierarchy."""

    def __init__(self, target: str, options: Options, hierarchies: list[tuple[str, str]]) -> None:
        self.target, self.options, self.hierarchies = target, options, hierarchies
        self.tree = -1  # made ahead, as are these, by name
        self.trees: list[tuple[str, int]] = []

    def describe(self) -> str:
        return f"mount cgroup on {self.target}"

    def prepare(self) -> None:
        """Nothing of the host is needed."""

    def make_ahead(self) -> bool:
        """Make the mounts before there is a root; in the cgroup namespace whose groups they show."""
        closed = Options(["nosuid", "nodev", "noexec"], self.target)
        self.tree = detached("tmpfs", "tmpfs", closed, ["mode=755"])
        for name, controllers in self.hierarchies:
            os.mkdir(name, 0o755, dir_fd=self.tree)
            words = _hierarchy(controllers).split(",")
            self.trees.append((name, detached("cgroup", "cgroup", self.options, words)))
        return True

    def apply(self, root: Root) -> None:
        tree, self.tree = self.tree, -1
        if tree >= 0:
            attach(tree, root, self.target)
        else:
            flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
            place = root.directory(self.target)
            try:
                mount_at(place, "tmpfs", "tmpfs", flags, "mode=755")
            finally:
                os.close(place)
        place = root.find(self.target)
        try:
            os.fchdir(place)
            self._attach_hierarchies(place) if tree >= 0 else self._mount_hierarchies()
            # The tmpfs itself becomes read-only once its mount points are made, as Docker's is.
            if self.options.flags & linux.MS_RDONLY:
                linux.mount_setattr(place, "", linux.AT_EMPTY_PATH, add=linux.MOUNT_ATTR_RDONLY)
        finally:
            os.close(place)

    def _mount_hierarchies(self) -> None:
        for name, controllers in self.hierarchies:
            os.mkdir(name, 0o755)
            linux.mount("cgroup", name, "cgroup", self.options.flags, _hierarchy(controllers))

    def _attach_hierarchies(self, place: int) -> None:
        for name, tree in self.trees:
            linux.move_mount(tree, place, name)
            os.close(tree)


def _hierarchy(controllers: str) -> str:
    """The options by which a hierarchy is mounted; one without controllers has a name."""
    return f"none,{controllers}" if controllers.startswith("name=") else controllers


Operation = FileSystem | Bind | CgroupV1


def parse_mount(entry: dict[str, Any], hierarchies: list[tuple[str, str]]) -> Operation:
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
            return CgroupV1(target, options, hierarchies)
        return FileSystem("cgroup2", "cgroup", target, options)
    if not kind:
        raise SandboxError(f"the mount on {target} has no type", kind="input")
    if kind == "overlay":
        from runtime.sandbox.layered import Layered

        return Layered(target, options)
    return FileSystem(kind, source, target, options)
