"""Copy files out of a container and into it, as tar; running or not (FEATURES D-34).

Every path is looked up beneath the container's root, and beneath a volume's own root where one is mounted: links of a
container lead nowhere but into the container. A running one is reached through /proc/<pid>/root, which sees its
mounts; one that does not run is put together from its layers without a mount that could be left behind.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from runtime.containers.container import Container, PlacedMount
from runtime.containers.roots import opened
from runtime.containers.untar import extract
from runtime.errors import InvalidInput, NotFound
from runtime.sandbox.paths import Root
from runtime.store.durable import faults_of_the_host

if TYPE_CHECKING:
    import tarfile

    from runtime.containers.containers import Containers


def copy_out(
    containers: Containers, container: Container, path: str, out: BinaryIO, *, follow: bool = False
) -> None:
    """A tar of what is at `path`; a directory with all below it, a link itself unless `follow`."""
    import tarfile

    with _opened(containers, container, path) as (root, inside), faults_of_the_host(f"cannot read {path}"):
        descriptor = _source(root, inside, path, follow)
        try:
            name = posixpath.basename(path.rstrip("/")) or "."
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                if path.endswith("/.") or name == ".":
                    name = "."
                _add(archive, descriptor, name, {})
        finally:
            os.close(descriptor)


def export(containers: Containers, container: Container, out: BinaryIO) -> None:
    """A tar of the root, without what is mounted in it: directories of other devices stay empty."""
    import tarfile

    with _opened(containers, container, "/") as (root, _), faults_of_the_host("cannot read the root"):
        descriptor = _source(root, "/", "/", False)
        try:
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                _add_below(archive, descriptor, ".", {}, os.stat(descriptor).st_dev)
        finally:
            os.close(descriptor)


def stat_path(containers: Containers, container: Container, path: str) -> os.stat_result:
    """What is at `path`; the last component is not followed. NotFound when there is nothing."""
    with _opened(containers, container, path) as (root, inside):
        descriptor = _source(root, inside, path, False)
        try:
            return os.stat(descriptor)
        finally:
            os.close(descriptor)


def is_directory(containers: Containers, container: Container, path: str) -> bool:
    """Whether `path`, links followed, is a directory there."""
    with _opened(containers, container, path) as (root, inside):
        try:
            os.close(root.find(inside, os.O_PATH | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def copy_in(
    containers: Containers,
    container: Container,
    directory: str,
    archive: BinaryIO,
    *,
    keep_owners: bool = False,
) -> None:
    """Unpack a tar in a directory that is there."""
    with _opened(containers, container, directory, write=True) as (root, inside):
        try:
            target = root.find(inside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"no directory {directory} in container {container.name}") from error
        try:
            with faults_of_the_host(f"cannot write to {directory} in container {container.name}"):
                extract(archive, target, owner=None if keep_owners else (0, 0))
        finally:
            os.close(target)


# --- where a path is --------------------------------------------------------------------------------------------------


@contextmanager
def _opened(
    containers: Containers, container: Container, path: str, *, write: bool = False
) -> Iterator[tuple[Root, str]]:
    """(a root, the path in it)."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if container.state.pid:
        with faults_of_the_host(f"cannot look into container {container.name}"):
            descriptor = os.open(
                f"/proc/{container.state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            )
        try:
            yield Root(descriptor), clean
        finally:
            os.close(descriptor)
        return
    mount = _mount_of(container, clean)
    if mount is not None:
        if write and mount.readonly:
            raise InvalidInput(f"{mount.target} is mounted read-only in container {container.name}")
        with _mounted(mount) as (root, single):
            yield root, "" if single else clean[len(mount.target.rstrip("/")) :] or "/"
        return
    if write and container.spec.read_only:
        raise InvalidInput(f"the root of container {container.name} is read-only")
    with opened(containers.store, container, write=write) as root:
        yield root, clean


def _mount_of(container: Container, path: str) -> PlacedMount | None:
    """The innermost mount over `path`."""
    found = [
        mount
        for mount in container.mounts
        if path == mount.target or path.startswith(mount.target.rstrip("/") + "/")
    ]
    return max(found, key=lambda mount: len(mount.target)) if found else None


@contextmanager
def _mounted(mount: PlacedMount) -> Iterator[tuple[Root, bool]]:
    """The root of a mount, and whether it is a single file."""
    if mount.type != "bind":
        raise InvalidInput(
            f"{mount.target} is a {mount.type} and has no files while the container does not run"
        )
    descriptor = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    try:
        yield Root(descriptor), not stat.S_ISDIR(os.stat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _source(root: Root, inside: str, path: str, follow: bool) -> int:
    """An O_PATH descriptor of what is to be copied."""
    try:
        if not inside:
            return os.dup(root.descriptor)
        flags = os.O_PATH | os.O_CLOEXEC
        if follow or path.endswith("/") or inside == "/":
            return root.find(inside, flags)
        return root.find(inside, flags | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"no {path} in the container") from error


# --- writing a tar ----------------------------------------------------------------------------------------------------


def _add(
    archive: tarfile.TarFile,
    descriptor: int,
    name: str,
    links: dict[tuple[int, int], str],
    device: int | None = None,
) -> None:
    """One entry and what is below it, on `device` only if that is given; sockets cannot be in a tar and are left out."""
    status = os.stat(descriptor)
    entry = _entry(status, name)
    if entry is None:
        return
    if stat.S_ISLNK(status.st_mode):
        entry.linkname = os.readlink("", dir_fd=descriptor)
        archive.addfile(entry)
    elif stat.S_ISDIR(status.st_mode):
        archive.addfile(entry)
        if device in (None, status.st_dev):
            _add_below(archive, descriptor, name, links, device)
    elif stat.S_ISREG(status.st_mode):
        known = links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        links[status.st_dev, status.st_ino] = name
        _add_file(archive, descriptor, entry, known)
    else:
        archive.addfile(entry)


def _add_below(
    archive: tarfile.TarFile,
    descriptor: int,
    name: str,
    links: dict[tuple[int, int], str],
    device: int | None = None,
) -> None:
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        for child in sorted(os.listdir(readable)):
            inner = os.open(child, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=readable)
            try:
                _add(archive, inner, f"{name}/{child}" if name != "." else child, links, device)
            finally:
                os.close(inner)
    finally:
        os.close(readable)


def _add_file(archive: tarfile.TarFile, descriptor: int, entry: tarfile.TarInfo, known: str | None) -> None:
    import tarfile

    if known is not None:
        entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, known, 0
        archive.addfile(entry)
        return
    # The descriptor is of our own making, so this magic link is not the container's to bend.
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:
        archive.addfile(entry, _Exactly(file, entry.size))


class _Exactly:
    """A file that grows or shrinks while it is read must still fill its entry."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int = -1) -> bytes:
        wanted = self._left if count < 0 else min(count, self._left)
        data = self._file.read(wanted)
        data += bytes(wanted - len(data))
        self._left -= len(data)
        return data


def _entry(status: os.stat_result, name: str) -> tarfile.TarInfo | None:
    import tarfile

    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    entry.size = status.st_size if kind == tarfile.REGTYPE else 0
    entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry
