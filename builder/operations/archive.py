"""ADD of a local archive: recognised by content, never by name, and unpacked beneath the root (A-75).

Nothing in an archive can reach outside: names are cleaned, links on the way are followed inside the root, hard links
must point at what the archive put there. Times, owners and modes are the archive's.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from builder.operations.owners import Owner
from builder.operations.roots import Root, clean
from builder.operations.step import Setting
from runtime.errors import InvalidInput

CHUNK = 1 << 20
ENTRY_LIMIT = 2_000_000
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}


def is_archive(path: str) -> bool:
    """A tar, plain or compressed with gzip, bzip2, xz or zstd. Something compressed that holds no tar is no archive."""
    if not os.path.isfile(path):
        return False
    try:
        with opened_tar(path) as archive:
            archive.next()
            return True
    except (tarfile.TarError, EOFError, OSError, InvalidInput):
        return False


@contextmanager
def opened_tar(path: str) -> Iterator[tarfile.TarFile]:
    """A tar for reading front to back, whatever it is compressed with."""
    with open(path, "rb") as raw, _plain(raw) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        yield archive


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
        import lzma

        stream = lzma.LZMAFile(raw)  # noqa: SIM115  closed below
    elif kind == "zst":
        import zstandard

        stream = cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(raw))
    else:
        yield raw
        return
    with stream:
        try:
            yield stream
        except Exception as error:
            if type(error).__name__ in ("ZstdError", "LZMAError", "BadGzipFile", "zlib.error"):
                raise tarfile.ReadError(str(error)) from error
            raise


def unpack(path: str, root: Root, directory: str, setting: Setting, *, owner: Owner | None) -> None:
    """Unpack the archive at `path` into `directory` of the root."""
    with opened_tar(path) as archive:
        unpacker = _Unpacker(root, directory, setting, owner)
        try:
            for count, member in enumerate(archive):
                if count > ENTRY_LIMIT:
                    raise InvalidInput(f"{path} has more than {ENTRY_LIMIT} entries")
                setting.cancel.check()
                unpacker.place(archive, member)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InvalidInput(f"cannot unpack {path}: {error}") from error
        unpacker.finish()


class _Unpacker:
    def __init__(self, root: Root, directory: str, setting: Setting, owner: Owner | None) -> None:
        self._root, self._directory, self._setting, self._owner = root, directory, setting, owner

    def place(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = clean(member.name)
        parent, base = self._locate(name)
        if not base:
            return
        target = f"{parent}/{base}" if parent else base
        if member.isdir():
            self._directory_entry(target, member)
            return
        self._root.ensure(parent, mtime_ns=self._setting.directory_ns())
        self._root.raise_up(parent)
        # As docker: what is in the way goes, a directory with all that is in it.
        place = self._root.clear(target)
        if member.islnk():
            self._hard_link(member, place)
            return
        self._create(archive, member, place)
        self._attributes(member, place)

    def _locate(self, name: str) -> tuple[str, str]:
        parent, _, base = name.rpartition("/")
        return self._root.resolve(f"{self._directory}/{parent}"), base

    def _directory_entry(self, target: str, member: tarfile.TarInfo) -> None:
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

    def _hard_link(self, member: tarfile.TarInfo, place: str) -> None:
        parent, base = self._locate(clean(member.linkname))
        source = f"{self._root.upper}/{parent}/{base}"
        if not base or not os.path.lexists(source) or stat.S_ISDIR(os.lstat(source).st_mode):
            raise InvalidInput(
                f"hard link {member.name!r} points to {member.linkname!r}, which is not in the archive"
            )
        os.link(source, place, follow_symlinks=False)

    def _create(self, archive: tarfile.TarFile, member: tarfile.TarInfo, place: str) -> None:
        if member.issym():
            os.symlink(member.linkname, place)
        elif member.isfile():
            source = archive.extractfile(member)
            assert source is not None
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "wb") as file:
                while data := source.read(CHUNK):
                    self._setting.cancel.check()
                    file.write(data)
        elif member.isfifo():
            os.mkfifo(place)
        elif member.isblk() or member.ischr():
            kind = stat.S_IFBLK if member.isblk() else stat.S_IFCHR
            if (member.devmajor, member.devminor) == (0, 0) and member.ischr():
                raise InvalidInput(f"device {member.name!r} 0:0 cannot be kept in an image layer")
            os.mknod(place, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        else:
            raise InvalidInput(f"{member.name!r} has an unknown type {member.type!r}")

    def _attributes(self, member: tarfile.TarInfo, place: str) -> None:
        uid, gid = self._owner or (member.uid, member.gid)
        os.chown(place, uid, gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(place, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            name = key.removeprefix("SCHILY.xattr.")
            if name != key and name.startswith(("user.", "security.capability")) and not member.issym():
                os.setxattr(place, name, value.encode("utf-8", "surrogateescape"))
        mtime_ns = self._mtime_ns(member)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _mtime_ns(self, member: tarfile.TarInfo) -> int:
        mtime_ns = int(member.mtime * 10**9)
        newest = self._setting.newest_ns
        return mtime_ns if newest is None else min(mtime_ns, newest)

    def finish(self) -> None:
        self._root.settle()
