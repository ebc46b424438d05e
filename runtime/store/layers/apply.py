"""Unpack a layer's tar into a directory in the form of its name (runtime/store/hiding.py; image-spec layer.md; FEATURES C-5).

Nothing of the tar is trusted. Where an entry goes, `target` decides; here it is made: an entry over a directory keeps
what is in it if it is a directory too, over anything else it replaces it. `trusted.*` attributes of the tar are ignored,
because overlayfs would believe them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from runtime.errors import HostFault, InvalidInput
from runtime.store.durable import write_all
from runtime.store.layers import header, sparse
from runtime.store.layers.lowers import Lowers
from runtime.store.layers.reader import Member, TarReader
from runtime.store.layers.target import Target, copy_xattrs, joined
from runtime.store.layers.writer import OPAQUE, WHITEOUT, DiffInfo

_ENTRY_LIMIT = 10_000_000
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {header.CHARACTER: stat.S_IFCHR, header.BLOCK_DEVICE: stat.S_IFBLK, header.FIFO: stat.S_IFIFO}


def apply_layer(
    stream: BinaryIO, directory: str, *, lowers: Sequence[str] = (), limit: int | None = None
) -> DiffInfo:
    """Unpack an uncompressed tar; the digest and size of its bytes. `lowers` are what it goes on top of, topmost first."""
    reader = TarReader(stream, limit=limit)
    target = Target(os.fsencode(directory), Lowers(lowers))
    entries = 0
    try:
        for member in reader:
            entries += 1
            if entries > _ENTRY_LIMIT:
                raise InvalidInput(f"the layer has more than {_ENTRY_LIMIT} entries")
            _add(target, member, reader)
        target.finish()
    except OSError as error:
        hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise HostFault(f"cannot unpack the layer into {directory}: {error}", hint=hint) from error
    return DiffInfo(reader.finish(), reader.size, entries)


def _parts(name: bytes) -> tuple[bytes, ...]:
    """The parts of an entry's name; refuses what leads upwards."""
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise InvalidInput(f"the layer has an entry outside of its root: {os.fsdecode(name)!r}")
    return parts


def _add(target: Target, member: Member, reader: TarReader) -> None:
    parts = _parts(member.name)
    if any(part.startswith(WHITEOUT) for part in parts):
        _hide(target, parts)
    elif member.kind == header.DIRECTORY:
        _directory(target, parts, member)
    elif parts:
        _create(target, joined(target.directory(parts[:-1]), parts[-1]), member, reader)


def _hide(target: Target, parts: tuple[bytes, ...]) -> None:
    """Whiteouts hide what is in lower layers, never what this layer has, in whatever order they come."""
    *above, name = parts
    hidden = name.removeprefix(WHITEOUT)
    if any(part.startswith(WHITEOUT) for part in above) or hidden in (b"", b".", b".."):
        raise InvalidInput(f"invalid whiteout {os.fsdecode(b'/'.join(parts))!r} in the layer")
    if name == OPAQUE:
        target.set_opaque(target.directory(parts[:-1]))
    elif not hidden.startswith(WHITEOUT):  # else aufs's own bookkeeping, which means nothing here
        target.hide(joined(target.directory(parts[:-1]), hidden))


# --- kinds of entries -----------------------------------------------------------------------------------------------


def _directory(target: Target, parts: tuple[bytes, ...], member: Member) -> None:
    path = target.make_directory(parts) if parts else b""
    full = target.full(path)
    os.chown(full, member.uid, member.gid)
    # `/` stays open to all: tars of directories made for one user would lock out every other (docker has 0755 there, buildah 0555).
    os.chmod(full, member.mode & 0o7777 | (0 if parts else 0o555))
    _set_xattrs(full, member)
    target.set_time(path, member.mtime_ns)


def _create(target: Target, path: bytes, member: Member, reader: TarReader) -> None:
    kind, full = member.kind, target.full(path)
    if kind == header.REGULAR:
        _file(target, path, member, reader)
    elif kind == header.HARD_LINK:
        _hard_link(target, path, member)
    elif kind == header.SYMLINK:
        target.make_room(path)
        os.symlink(member.link, full)
        _set_attributes(full, member)
    elif kind in _SPECIAL:
        _special(target, path, member)
    else:
        raise InvalidInput(f"unsupported tar entry type {kind!r} of {os.fsdecode(member.name)!r}")


def _file(target: Target, path: bytes, member: Member, reader: TarReader) -> None:
    full = target.full(path)
    try:
        descriptor = os.open(full, _CREATE, 0o600)
    except FileExistsError:
        target.make_room(path)
        descriptor = os.open(full, _CREATE, 0o600)
    try:
        if member.pieces is None:
            for chunk in reader.data():
                write_all(descriptor, chunk)
        else:
            _write_pieces(descriptor, member.pieces, reader)
            os.ftruncate(descriptor, member.real_size)
        os.fchown(descriptor, member.uid, member.gid)
        os.fchmod(descriptor, member.mode & 0o7777)
        _set_xattrs(full, member)
        os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))
    finally:
        os.close(descriptor)


def _write_pieces(descriptor: int, pieces: sparse.Map[int], reader: TarReader) -> None:
    """The data of a sparse file, each piece at its place; the holes are left."""
    data = reader.data()
    chunk = memoryview(b"")
    for offset, length in sparse.pairs(pieces):
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            chunk = chunk or next(data)
            write_all(descriptor, chunk[:length])
            length, chunk = length - len(chunk[:length]), chunk[length:]


def _special(target: Target, path: bytes, member: Member) -> None:
    if member.kind == header.CHARACTER and member.device == (0, 0):
        name = os.fsdecode(member.name)
        raise InvalidInput(f"device {name!r} is 0/0, which overlayfs takes for a deleted file")
    target.make_room(path)
    os.mknod(target.full(path), _SPECIAL[member.kind] | 0o600, os.makedev(*member.device))
    _set_attributes(target.full(path), member)


def _hard_link(target: Target, path: bytes, member: Member) -> None:
    parts = _parts(member.link)
    if not parts:
        raise _no_file(member)
    source = joined(target.directory(parts[:-1]), parts[-1])
    if source == path:
        return
    status = target.status(source)
    if status is None:
        _copy_up(target, source, member)
    elif target.form.is_whiteout(status) or stat.S_ISDIR(status.st_mode):
        raise _no_file(member)
    target.make_room(path)
    os.link(target.full(source), target.full(path), follow_symlinks=False)


def _copy_up(target: Target, path: bytes, member: Member) -> None:
    """A hard link may point to a file of a lower layer: this layer then has it too."""
    found = target.below(path)
    if found is None or stat.S_ISDIR(found[1].st_mode):
        raise _no_file(member)
    below, status = found
    full, is_link = target.full(path), stat.S_ISLNK(status.st_mode)
    if is_link:
        os.symlink(os.readlink(below), full)
    elif stat.S_ISREG(status.st_mode):
        copy_file(below, full)
    else:
        os.mknod(full, status.st_mode, status.st_rdev)
    os.chown(full, status.st_uid, status.st_gid, follow_symlinks=False)
    if not is_link:
        os.chmod(full, stat.S_IMODE(status.st_mode))
    copy_xattrs(below, full)
    os.utime(full, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _no_file(member: Member) -> InvalidInput:
    name, link = os.fsdecode(member.name), os.fsdecode(member.link)
    return InvalidInput(f"hard link {name!r} points to {link!r}, which is no file")


# --- attributes -----------------------------------------------------------------------------------------------------


def _set_attributes(full: bytes, member: Member) -> None:
    os.chown(full, member.uid, member.gid, follow_symlinks=False)
    if member.kind != header.SYMLINK:
        os.chmod(full, member.mode & 0o7777)
    _set_xattrs(full, member)
    os.utime(full, ns=(member.mtime_ns, member.mtime_ns), follow_symlinks=False)


def _set_xattrs(full: bytes, member: Member) -> None:
    for name, value in member.xattrs.items():
        if name.startswith(("trusted.", "user.overlay.")):
            continue
        try:
            os.setxattr(full, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP and name.startswith(("user.", "security.capability")):
                raise HostFault(
                    f"the store's file system keeps no extended attribute {name}, which the layer's "
                    f"{os.fsdecode(member.name)!r} has",
                    hint="put the store on another one with PIPE_ROOT, such as ext4 or xfs",
                ) from error
            # What else this kernel does not know is left out, as every engine does.
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise


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
