"""ADD of a local archive: recognised by content, never by name, and unpacked beneath the root (A-75).

Nothing in an archive can reach outside: names are cleaned, links on the way are followed inside the root, hard links
must point at what the archive put there. Times, owners and modes are the archive's. Headers are limited in size and read
with the care layers are read with (`runtime.store.layers.reader`); data is streamed, and zeros become holes, so that an
archive that promises terabytes of nothing costs neither memory nor disk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from builder.operations.owners import Owner
from builder.operations.roots import Root, clean
from builder.operations.step import Setting
from runtime.errors import HostFault, InvalidInput
from runtime.store.durable import write_all
from runtime.store.layers import header, sparse
from runtime.store.layers.reader import Member, TarReader, is_header

if TYPE_CHECKING:
    import lzma

CHUNK = 1 << 20
ENTRY_LIMIT = 2_000_000
XZ_MEMORY = 256 << 20  # `xz -9` wants 65 MiB
_ZEROS = bytes(CHUNK)
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
# What decompressors raise on damaged data, besides OSError and EOFError; they are imported when needed.
_DAMAGED = ("ZstdError", "LZMAError", "BadGzipFile", "error")
# A name, a size, a number, an attribute or an empty link that no file system takes: the archive's fault, not the host's.
_ITS_FAULT = (
    errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.ELOOP, errno.EOVERFLOW, errno.EILSEQ, errno.ENOENT,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EMLINK, errno.E2BIG, errno.ERANGE,
)  # fmt: skip


def is_archive(path: str) -> bool:
    """A tar, plain or compressed with gzip, bzip2, xz or zstd. Something compressed that holds no tar is no archive.

    The first header decides, so that one which ends too early or is damaged further on is an error, not a file to copy.
    """
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as raw, _plain(raw) as stream:
            return is_header(_first_block(stream))
    except Exception as error:
        if isinstance(error, (OSError, EOFError)) or type(error).__name__ in _DAMAGED:
            return False
        raise


def is_compressed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(6).startswith(tuple(_MAGIC))


def _first_block(stream: IO[bytes]) -> bytes:
    block = b""
    while len(block) < header.BLOCK and (data := stream.read(header.BLOCK - len(block))):
        block += data
    return block


def newest_time(path: str) -> int | None:
    """When the newest entry of an archive was changed, in whole seconds."""
    with opened_tar(path) as members:
        return max((member.mtime_ns // 10**9 for member in members), default=None)


@contextmanager
def opened_tar(path: str) -> Iterator[TarReader]:
    """A tar for reading front to back, whatever it is compressed with."""
    with open(path, "rb") as raw, _plain(raw) as stream:
        try:
            yield TarReader(cast("BinaryIO", stream))
        except EOFError as error:
            raise InvalidInput(f"{path} ends too early") from error
        except Exception as error:
            if type(error).__name__ in _DAMAGED:
                raise InvalidInput(f"{path} is damaged: {error}") from error
            raise


@contextmanager
def _plain(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    head = raw.read(512)
    raw.seek(0)
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    if kind == "gz":
        import gzip

        stream: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="rb"))
    elif kind == "bz2":
        import bz2

        stream = bz2.BZ2File(raw)
    elif kind == "xz":
        stream = cast("IO[bytes]", _Xz(raw))
    elif kind == "zst":
        import zstandard

        stream = cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(raw))
    else:
        yield raw
        return
    with stream:
        yield stream


class _Xz:
    """What `lzma.LZMAFile` does, with a limit: an xz file says itself how much memory it wants, up to 4 GiB."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decoder = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        import lzma

        return lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        while True:
            if self._decoder.eof:
                # Streams may follow one another, with zeros between them.
                rest = self._decoder.unused_data.lstrip(b"\0") or self._raw.read(CHUNK).lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder, data = self._new(), rest
            else:
                data = self._raw.read(CHUNK) if self._decoder.needs_input else b""
                if not data and self._decoder.needs_input:
                    raise EOFError("the compressed data ends too early")
            if found := self._decoder.decompress(data, size):
                return found

    def __enter__(self) -> _Xz:
        return self

    def __exit__(self, *error: object) -> None:
        """The file is the opener's to close."""


def unpack(path: str, root: Root, directory: str, setting: Setting, *, owner: Owner | None) -> None:
    """Unpack the archive at `path` into `directory` of the root."""
    try:
        with opened_tar(path) as members:
            unpacker = _Unpacker(root, directory, setting, owner)
            for count, member in enumerate(members):
                if count > ENTRY_LIMIT:
                    raise InvalidInput(f"it has more than {ENTRY_LIMIT} entries")
                setting.cancel.check()
                root.rest()
                _place(unpacker, members, member)
            unpacker.finish()
    except InvalidInput as error:
        raise InvalidInput(f"cannot unpack {os.path.basename(path)}: {error.message}") from error


def _place(unpacker: _Unpacker, members: TarReader, member: Member) -> None:
    name = os.fsdecode(member.name)
    try:
        unpacker.place(members, member)
    except (OverflowError, RecursionError) as error:
        raise InvalidInput(f"entry {name[:200]!r}: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise  # damaged data
        kind = InvalidInput if error.errno in _ITS_FAULT else HostFault
        hint = "free some space, for example with `pipe system prune`" if error.errno == errno.ENOSPC else ""
        raise kind(f"entry {name[:200]!r}: {error.strerror}", hint=hint) from error


class _Unpacker:
    def __init__(self, root: Root, directory: str, setting: Setting, owner: Owner | None) -> None:
        self._root, self._directory, self._setting, self._owner = root, directory, setting, owner

    def place(self, members: TarReader, member: Member) -> None:
        name = clean(os.fsdecode(member.name))
        parent, base = self._locate(name)
        if not base:
            return
        target = f"{parent}/{base}" if parent else base
        if member.kind == header.DIRECTORY:
            self._directory_entry(target, member)
            return
        self._root.ensure(parent, mtime_ns=self._setting.directory_ns())
        self._root.raise_up(parent)
        # As docker: what is in the way goes, a directory with all that is in it.
        place = self._root.clear(target)
        if member.kind == header.HARD_LINK:
            self._hard_link(member, place)
            return
        self._create(members, member, place)
        self._attributes(member, place)

    def _locate(self, name: str) -> tuple[str, str]:
        parent, _, base = name.rpartition("/")
        return self._root.resolve(f"{self._directory}/{parent}"), base

    def _directory_entry(self, target: str, member: Member) -> None:
        mtime_ns = self._mtime_ns(member)
        uid, gid = self._owner or (member.uid, member.gid)
        if self._root.directories(target):
            place = self._root.raise_up(target)
            os.chown(place, uid, gid)
            os.chmod(place, member.mode & 0o7777)
        else:
            self._root.ensure(target.rpartition("/")[0], mtime_ns=self._setting.directory_ns())
            self._root.clear(target)
            place = self._root.make_directory(target, member.mode & 0o7777, uid, gid, mtime_ns)
        self._root.set_times(target, mtime_ns)

    def _hard_link(self, member: Member, place: str) -> None:
        link = os.fsdecode(member.link)
        parent, base = self._locate(clean(link))
        source = f"{self._root.upper}/{parent}/{base}"
        if not base or not os.path.lexists(source) or stat.S_ISDIR(os.lstat(source).st_mode):
            raise InvalidInput(
                f"hard link {os.fsdecode(member.name)!r} points to {link!r}, which is not in the archive"
            )
        os.link(source, place, follow_symlinks=False)

    def _create(self, members: TarReader, member: Member, place: str) -> None:
        name = os.fsdecode(member.name)
        if member.kind == header.SYMLINK:
            os.symlink(os.fsdecode(member.link), place)
        elif member.kind == header.REGULAR:
            self._file(members, member, place)
        elif member.kind == header.FIFO:
            os.mkfifo(place)
        elif member.kind in (header.BLOCK_DEVICE, header.CHARACTER):
            kind = stat.S_IFBLK if member.kind == header.BLOCK_DEVICE else stat.S_IFCHR
            if member.device == (0, 0) and kind == stat.S_IFCHR:
                raise InvalidInput(f"device {name!r} 0:0 cannot be kept in an image layer")
            os.mknod(place, kind | 0o600, os.makedev(*member.device))
        else:
            raise InvalidInput(f"{name!r} has an unknown type {member.kind!r}")

    def _file(self, members: TarReader, member: Member, place: str) -> None:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if member.pieces is None:
                _write(handle, self._checked(members))
                os.ftruncate(handle, member.size)
                return
            data = _Pieces(self._checked(members))
            for offset, length in sparse.pairs(member.pieces):
                os.lseek(handle, offset, os.SEEK_SET)
                _write(handle, data.take(length))
            os.ftruncate(handle, member.real_size)
        finally:
            os.close(handle)

    def _checked(self, members: TarReader) -> Iterator[memoryview]:
        for chunk in members.data():
            self._setting.cancel.check()
            yield chunk

    def _attributes(self, member: Member, place: str) -> None:
        uid, gid = self._owner or (member.uid, member.gid)
        is_link = member.kind == header.SYMLINK
        os.chown(place, uid, gid, follow_symlinks=False)
        if not is_link:
            os.chmod(place, member.mode & 0o7777)
            _set_xattrs(place, member)
        mtime_ns = self._mtime_ns(member)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _mtime_ns(self, member: Member) -> int:
        newest = self._setting.newest_ns
        return member.mtime_ns if newest is None else min(member.mtime_ns, newest)

    def finish(self) -> None:
        self._root.settle()


def _set_xattrs(place: str, member: Member) -> None:
    for name, value in member.xattrs.items():
        if not name.startswith(("user.", "security.capability")):
            continue
        try:
            os.setxattr(place, name, value)
        except OSError as error:
            # What the store's file system does not know is left out, as in layers (`runtime.store.layers.apply`).
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise


def _write(handle: int, chunks: Iterator[memoryview]) -> None:
    """Write from where the file is at; stretches of zeros are left out. The file must get its size afterwards."""
    for chunk in chunks:
        if chunk[0] == 0 == chunk[-1] and bytes(chunk) == _ZEROS[: len(chunk)]:
            os.lseek(handle, len(chunk), os.SEEK_CUR)
        else:
            write_all(handle, chunk)


class _Pieces:
    """Data that comes in one stream, taken in pieces of given lengths."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def take(self, length: int) -> Iterator[memoryview]:
        while length:
            self._rest = self._rest or next(self._chunks)
            part, self._rest = self._rest[:length], self._rest[length:]
            length -= len(part)
            yield part
