"""Which control group hierarchies this host has, and a container's directory in each.

A v1 host mounts one hierarchy per controller (often several under one mount, plus named ones and perhaps an empty v2
tree called "unified"); a v2 host has one tree. Paths count from the mount, which in a nested host is its own group.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any, Protocol

from runtime.sandbox.errors import SandboxError

Json = dict[str, Any]
ROOT = "/sys/fs/cgroup"
_REMOVE_SECONDS = 10.0
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)


class Version(Protocol):
    """What v1 and v2 do differently; see `v1` and `v2`."""

    def write_limits(self, cgroup: Cgroup, resources: Json) -> None: ...
    def oom_kills(self, cgroup: Cgroup) -> int: ...
    def freeze(self, cgroup: Cgroup, frozen: bool) -> None: ...
    def kill(self, cgroup: Cgroup) -> None: ...
    def stats(self, cgroup: Cgroup) -> Json: ...


class Hierarchies:
    """The host's mounts: directory -> its controllers. `unified` is a pure v2 host."""

    def __init__(self, mounts: dict[str, tuple[str, ...]], unified: bool, version: Version) -> None:
        self.mounts = mounts
        self.unified = unified
        self.version = version
        self.by_controller = {name: mount for mount, names in mounts.items() for name in names}

    def names(self) -> list[tuple[str, str]]:
        """(directory name, mount options) of each v1 hierarchy, as a container's /sys/fs/cgroup shows them."""
        if self.unified:
            return []
        return [(os.path.basename(mount), ",".join(names)) for mount, names in self.mounts.items()]

    def cgroup(self, path: str) -> Cgroup:
        return Cgroup(self, path.strip("/"))


def write(path: str, value: str) -> None:
    """One write(2): the kernel takes a value whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def read(path: str) -> str:
    """The value, "" when the file does not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = bytearray()
        while part := os.read(descriptor, 65536):
            parts += part
        return parts.decode()
    finally:
        os.close(descriptor)


class Cgroup:
    """One container's group, in all hierarchies."""

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        self.hierarchies = hierarchies
        self.path = path
        self.directories = [f"{mount}/{path}" for mount in hierarchies.mounts]

    def directory(self, controller: str) -> str | None:
        directory = f"{self.hierarchies.by_controller.get(controller)}/{self.path}"
        return directory if directory in self.directories else None

    def create(self, resources: Json) -> None:
        """Make the directories and write the limits; nothing is left when that fails.

        A hierarchy where we may not make one counts as missing: only a limit that needs it is then an error.
        """
        try:
            for mount, controllers in self.hierarchies.mounts.items():
                v1_cpuset = "cpuset" in controllers and not self.hierarchies.unified
                try:
                    make_directories(mount, self.path, v1_cpuset)
                except OSError as error:
                    if error.errno not in _NOT_OURS:
                        raise
                    self.directories.remove(f"{mount}/{self.path}")
            self.hierarchies.version.write_limits(self, resources)
        except BaseException:
            self.remove()
            raise

    def update(self, resources: Json) -> None:
        self.hierarchies.version.write_limits(self, resources)

    def enter(self, pid: int) -> None:
        for directory in self.directories:
            write(f"{directory}/cgroup.procs", str(pid))

    def processes(self) -> list[int]:
        for directory in self.directories:
            if text := read(f"{directory}/cgroup.procs"):
                return [int(line) for line in text.split()]
        return []

    def oom_kills(self) -> int:
        return self.hierarchies.version.oom_kills(self)

    def freeze(self, frozen: bool = True) -> None:
        self.hierarchies.version.freeze(self, frozen)

    def kill(self) -> None:
        """SIGKILL to every process in it, also those born meanwhile."""
        self.hierarchies.version.kill(self)

    def stats(self) -> Json:
        return self.hierarchies.version.stats(self)

    def remove(self) -> None:
        """Remove all directories, with the groups the container made inside."""
        for directory in self.directories:
            remove_directory(directory)


def make_directories(mount: str, path: str, cpuset: bool) -> None:
    """mkdir -p. With v1's cpuset, a new group has no processors until somebody gives it some."""
    directory = f"{mount}/{path}"
    try:
        os.mkdir(directory)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directories(mount, os.path.dirname(path), cpuset)
        os.mkdir(directory)
    if cpuset:
        _inherit_cpuset(directory)


def _inherit_cpuset(directory: str) -> None:
    """cgroup-v1/cpusets.rst: `clone_children` makes the kernel do this for the next level."""
    if read(f"{directory}/cpuset.cpus").strip():
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        write(f"{directory}/{name}", read(f"{os.path.dirname(directory)}/{name}").strip())
    write(f"{directory}/cgroup.clone_children", "1")


def remove_directory(directory: str) -> None:
    """rmdir, retried: a killed process leaves its group only when it is reaped."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            _remove_children(directory)
            if time.monotonic() > deadline:
                raise SandboxError(f"{directory} is still in use", operation="remove cgroup") from error
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _remove_children(directory: str) -> None:
    try:
        with os.scandir(directory) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        remove_directory(child)


def _mounted() -> tuple[dict[str, tuple[str, ...]], str]:
    """v1 mounts with their controllers, and the v2 mount."""
    ones: dict[str, tuple[str, ...]] = {}
    two = ""
    known = _known_controllers()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            place = before.split()[4]
            kind, _, options = after.split()[:3]
            if kind == "cgroup2" and not two:
                two = place
            elif kind == "cgroup" and place.startswith(ROOT):
                words = options.split(",")
                names = tuple(word for word in words if word in known or word.startswith("name="))
                if names and names not in ones.values():
                    ones[place] = names
    return ones, two


def _known_controllers() -> set[str]:
    """First column of /proc/cgroups; a kernel without v1 has no such file."""
    text = read("/proc/cgroups")
    return {line.split()[0] for line in text.splitlines() if line and not line.startswith("#")}


def detect() -> Hierarchies:
    """The layout of this host. v1 wins where both are mounted and v2 has no controllers (a "hybrid" host)."""
    ones, two = _mounted()
    if ones:
        from runtime.sandbox.cgroup.v1 import V1

        return Hierarchies(ones, False, V1())
    if two:
        from runtime.sandbox.cgroup.v2 import V2

        controllers = tuple(read(f"{two}/cgroup.controllers").split())
        return Hierarchies({two: controllers}, True, V2())
    raise SandboxError(
        "no cgroup hierarchy is mounted", kind="unsupported", hint="mount cgroup2 on /sys/fs/cgroup"
    )
