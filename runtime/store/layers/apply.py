"""Unpack a layer's tar into an overlay upper directory (image-spec layer.md; FEATURES C-5).

Nothing of the tar is trusted. The directory belongs to us alone while this runs, so every path is resolved here, part
by part and never through a link out of it: what a link in the layer or in the layers below points to is looked for
beneath the root. `trusted.*` attributes of the tar are ignored, because overlayfs would believe them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from runtime.errors import HostFault, InvalidInput
from runtime.store.durable import write_all
from runtime.store.layers import header
from runtime.store.layers.lowers import Lowers, is_whiteout
from runtime.store.layers.reader import Member, TarReader
from runtime.store.layers.writer import OPAQUE, WHITEOUT, DiffInfo

_OPAQUE_XATTR = "trusted.overlay.opaque"
_ENTRY_LIMIT = 10_000_000
_LINK_LIMIT = 40
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def apply_layer(
    stream: BinaryIO, directory: str, *, lowers: Sequence[str] = (), limit: int | None = None
) -> DiffInfo:
    """Unpack an uncompressed tar; the digest and size of its bytes. `lowers` are what it goes on top of, topmost first."""
    reader = TarReader(stream, limit=limit)
    target = _Target(os.fsencode(directory), Lowers(lowers))
    entries = 0
    try:
        for member in reader:
            entries += 1
            if entries > _ENTRY_LIMIT:
                raise InvalidInput(f"the layer has more than {_ENTRY_LIMIT} entries")
            target.add(member, reader)
        target.finish()
    except OSError as error:
        raise HostFault(f"cannot unpack the layer into {directory}: {error}") from error
    return DiffInfo(reader.finish(), reader.size, entries)


def _parts(name: bytes) -> list[bytes]:
    """The parts of an entry's name; refuses what leads upwards."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise InvalidInput(f"the layer has an entry outside of its root: {os.fsdecode(name)!r}")
    return parts


class _Target:
    """The directory being filled. Paths are relative to it and lead through real directories only."""

    def __init__(self, root: bytes, lowers: Lowers) -> None:
        self._root, self._lowers = root, lowers
        self._resolved: dict[tuple[bytes, ...], bytes] = {(): b""}
        self._opaque: set[bytes] = set()
        self._times: dict[bytes, int] = {}

    def _full(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    # --- entries --------------------------------------------------------------------------------------------------

    def add(self, member: Member, reader: TarReader) -> None:
        parts = _parts(member.name)
        if not parts:
            if member.kind == header.DIRECTORY:
                self._set_directory(b"", member)
            return
        name = parts[-1]
        if any(part.startswith(WHITEOUT) for part in parts):
            self._mark(parts, name)
            return
        parent = self._directory(tuple(parts[:-1]))
        self._create(parent + b"/" + name if parent else name, member, reader)

    def _create(self, path: bytes, member: Member, reader: TarReader) -> None:
        kind = member.kind
        if kind == header.DIRECTORY:
            self._make_directory(path)
            self._set_directory(path, member)
            key = tuple(path.split(b"/"))
            if self._resolved.get(key, path) != path:
                self._resolved = {(): b""}  # it was a link of a lower layer until now
        elif kind == header.REGULAR:
            self._file(path, member, reader)
        elif kind == header.HARD_LINK:
            self._hard_link(path, member)
        elif kind == header.SYMLINK:
            self._anew(path)
            os.symlink(member.link, self._full(path))
            self._set_attributes(path, member)
        elif kind in (header.CHARACTER, header.BLOCK_DEVICE, header.FIFO):
            self._special(path, member)
        else:
            raise InvalidInput(f"unsupported tar entry type {kind!r} of {os.fsdecode(member.name)!r}")

    def _file(self, path: bytes, member: Member, reader: TarReader) -> None:
        full = self._full(path)
        try:
            descriptor = os.open(full, _CREATE, 0o600)
        except FileExistsError:
            self._anew(path)
            descriptor = os.open(full, _CREATE, 0o600)
        try:
            if member.pieces is None:
                for chunk in reader.data():
                    write_all(descriptor, chunk)
            else:
                _write_pieces(descriptor, member, reader)
            os.fchown(descriptor, member.uid, member.gid)
            os.fchmod(descriptor, member.mode & 0o7777)
            if member.xattrs:
                self._set_xattrs(full, member)
            os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(descriptor)

    def _hard_link(self, path: bytes, member: Member) -> None:
        parts = _parts(member.link)
        if not parts:
            raise InvalidInput(f"hard link {os.fsdecode(member.name)!r} points to the root")
        parent = self._directory(tuple(parts[:-1]))
        source = parent + b"/" + parts[-1] if parent else parts[-1]
        if source == path:
            return
        status = self._status(source)
        if status is None:
            self._copy_up(source, member)
        elif is_whiteout(status) or stat.S_ISDIR(status.st_mode):
            raise _no_file(member)
        self._anew(path)
        os.link(self._full(source), self._full(path), follow_symlinks=False)

    def _special(self, path: bytes, member: Member) -> None:
        kinds = {header.CHARACTER: stat.S_IFCHR, header.BLOCK_DEVICE: stat.S_IFBLK, header.FIFO: stat.S_IFIFO}
        if member.kind == header.CHARACTER and member.device == (0, 0):
            raise InvalidInput(
                f"device {os.fsdecode(member.name)!r} is 0/0, which overlayfs takes for a deleted file"
            )
        self._anew(path)
        os.mknod(self._full(path), kinds[member.kind] | 0o600, os.makedev(*member.device))
        self._set_attributes(path, member)

    # --- whiteouts ------------------------------------------------------------------------------------------------

    def _mark(self, parts: list[bytes], name: bytes) -> None:
        """Whiteouts hide what is in lower layers, never what this layer has, in whatever order they come."""
        if any(part.startswith(WHITEOUT) for part in parts[:-1]) or name == WHITEOUT:
            raise InvalidInput(f"invalid whiteout {os.fsdecode(b'/'.join(parts))!r} in the layer")
        if name == OPAQUE:
            parent = self._directory(tuple(parts[:-1]))
            self._set_opaque(parent)
        elif not name.startswith(
            WHITEOUT + WHITEOUT
        ):  # else aufs's own bookkeeping, which means nothing here
            self._hide(parts, name.removeprefix(WHITEOUT))

    def _hide(self, parts: list[bytes], name: bytes) -> None:
        if name in (b".", b".."):
            raise InvalidInput(f"invalid whiteout {os.fsdecode(b'/'.join(parts))!r} in the layer")
        if not self._lowers:
            return
        parent = self._directory(tuple(parts[:-1]))
        path = parent + b"/" + name if parent else name
        status = self._status(path)
        if status is None:
            os.mknod(self._full(path), stat.S_IFCHR, 0)
        elif stat.S_ISDIR(status.st_mode):
            self._set_opaque(path)

    def _set_opaque(self, path: bytes) -> None:
        self._opaque.add(path)
        if path and self._lowers:
            os.setxattr(self._full(path), _OPAQUE_XATTR, b"y")

    # --- directories ----------------------------------------------------------------------------------------------

    def _directory(self, parts: tuple[bytes, ...], links: int = 0) -> bytes:
        """The real directory that `parts` lead to, made where it is missing."""
        known = self._resolved.get(parts)
        if known is None:
            known = self._step(self._directory(parts[:-1], links), parts[-1], links)
            self._resolved[parts] = known
        return known

    def _step(self, parent: bytes, name: bytes, links: int) -> bytes:
        path = parent + b"/" + name if parent else name
        full, status = self._full(path), self._status(path)
        if status is None and (found := self._below(path)):
            full, status = found
        if status is not None and stat.S_ISLNK(status.st_mode):
            return self._follow(parent, os.readlink(full), links + 1)
        if status is not None and not stat.S_ISDIR(status.st_mode) and not is_whiteout(status):
            raise InvalidInput(f"the layer has entries below {os.fsdecode(path)!r}, which is no directory")
        self._make_directory(path)
        return path

    def _follow(self, parent: bytes, target: bytes, links: int) -> bytes:
        """Where a link leads, beneath the root."""
        if links > _LINK_LIMIT:
            raise InvalidInput(f"too many links on the way to {os.fsdecode(target)!r} in the layer")
        at = [] if target.startswith(b"/") else parent.split(b"/") if parent else []
        for part in target.split(b"/"):
            if part == b"..":
                at = at[:-1]
            elif part not in (b"", b"."):
                real = self._step(b"/".join(at), part, links)
                at = real.split(b"/") if real else []
        return b"/".join(at)

    def _make_directory(self, path: bytes) -> None:
        """Make a directory unless there is one. One that is in lower layers too begins with their attributes."""
        full = self._full(path)
        hidden = False
        try:
            os.mkdir(full, 0o755)
        except FileExistsError:
            status = os.lstat(full)
            if stat.S_ISDIR(status.st_mode):
                return
            hidden = is_whiteout(status)
            os.unlink(full)
            self._resolved = {(): b""}
            os.mkdir(full, 0o755)
        os.chmod(full, 0o755)  # whatever the umask
        if hidden:
            self._set_opaque(path)
        else:
            self._inherit(path, full)

    def _inherit(self, path: bytes, full: bytes) -> None:
        found = self._below(path)
        if found is None or not stat.S_ISDIR(found[1].st_mode):
            return
        below, status = found
        os.chown(full, status.st_uid, status.st_gid)
        os.chmod(full, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(below):
            if not name.startswith("trusted."):
                os.setxattr(full, name, os.getxattr(below, name))
        self._times[path] = status.st_mtime_ns

    def _below(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """The lower layers' `path`, unless this layer hides it."""
        if not self._lowers or any(
            path == each or path.startswith(each + b"/") or not each for each in self._opaque
        ):
            return None
        return self._lowers.find(path)

    def _set_directory(self, path: bytes, member: Member) -> None:
        full = self._full(path)
        os.chown(full, member.uid, member.gid)
        os.chmod(full, member.mode & 0o7777)
        if member.xattrs:
            self._set_xattrs(full, member)
        self._times[path] = member.mtime_ns  # set at the end: what is made in it changes it

    def finish(self) -> None:
        if b"" in self._opaque and self._lowers:
            self._hide_lower_root()
        for path, mtime in self._times.items():
            full = self._full(path)
            if os.path.isdir(full) and not os.path.islink(full):
                os.utime(full, ns=(mtime, mtime))

    def _hide_lower_root(self) -> None:
        """Overlayfs ignores an opaque root: hide each of its entries instead."""
        for name in sorted(self._lowers.names(b"")):
            status = self._status(name)
            if status is None:
                os.mknod(self._full(name), stat.S_IFCHR, 0)
            elif stat.S_ISDIR(status.st_mode):
                os.setxattr(self._full(name), _OPAQUE_XATTR, b"y")

    # --- files ----------------------------------------------------------------------------------------------------

    def _status(self, path: bytes) -> os.stat_result | None:
        """What this layer has at the path, if anything."""
        try:
            return os.lstat(self._full(path))
        except FileNotFoundError:
            return None

    def _anew(self, path: bytes) -> None:
        """Make room for a new entry: an earlier one of this layer with the same name goes."""
        full, status = self._full(path), self._status(path)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            self._remove_tree(full)
            self._resolved = {(): b""}
            inside = path + b"/"
            self._times = {p: t for p, t in self._times.items() if p != path and not p.startswith(inside)}
        else:
            os.unlink(full)

    def _remove_tree(self, full: bytes) -> None:
        with os.scandir(full) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self._remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(full)

    def _copy_up(self, path: bytes, member: Member) -> None:
        """A hard link may point to a file of a lower layer: this layer then has it too."""
        found = self._below(path)
        if found is None or stat.S_ISDIR(found[1].st_mode):
            raise _no_file(member)
        below, status = found
        full = self._full(path)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(below), full)
        elif stat.S_ISREG(status.st_mode):
            copy_file(below, full)
        else:
            os.mknod(full, status.st_mode, status.st_rdev)
        os.chown(full, status.st_uid, status.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(full, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(below, follow_symlinks=False):
            if not name.startswith("trusted."):
                value = os.getxattr(below, name, follow_symlinks=False)
                os.setxattr(full, name, value, follow_symlinks=False)
        os.utime(full, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    def _set_attributes(self, path: bytes, member: Member) -> None:
        full = self._full(path)
        os.chown(full, member.uid, member.gid, follow_symlinks=False)
        if member.kind != header.SYMLINK:
            os.chmod(full, member.mode & 0o7777)
        if member.xattrs:
            self._set_xattrs(full, member)
        os.utime(full, ns=(member.mtime_ns, member.mtime_ns), follow_symlinks=False)

    @staticmethod
    def _set_xattrs(full: bytes, member: Member) -> None:
        import errno

        for name, value in member.xattrs.items():
            if name.startswith(("trusted.", "user.overlay.")):
                continue
            try:
                os.setxattr(full, name, value, follow_symlinks=False)
            except OSError as error:
                # What this file system or kernel does not know is left out, as every engine does.
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                    raise


def _no_file(member: Member) -> InvalidInput:
    name, link = os.fsdecode(member.name), os.fsdecode(member.link)
    return InvalidInput(f"hard link {name!r} points to {link!r}, which is no file")


def _write_pieces(descriptor: int, member: Member, reader: TarReader) -> None:
    """The data of a sparse file, each piece at its place; the holes are left."""
    data = reader.data()
    chunk = memoryview(b"")
    for offset, length in member.pieces or ():
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            chunk = chunk or next(data)
            write_all(descriptor, chunk[:length])
            length, chunk = length - len(chunk[:length]), chunk[length:]
    os.ftruncate(descriptor, member.real_size)


def copy_file(source: bytes, target: bytes) -> None:
    """Copy a regular file's data to a new file."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writing = os.open(target, _CREATE, 0o600)
        try:
            while os.copy_file_range(reading, writing, 1 << 30):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)
