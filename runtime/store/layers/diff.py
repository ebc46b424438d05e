"""Turn a layer's directory into a tar (FEATURES B-26). Reads only; the directory must not change meanwhile.

What hides something becomes whiteouts and opaque marks (runtime/store/hiding.py says what does). The root has no entry of its own. With
the `lowers` given, a directory that overlayfs copied up although nothing in it or about it changed is left out, and so is an
opaque mark that hides nothing: both depend on the kernel and on whether there was one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO, Protocol

from runtime.errors import HostFault
from runtime.store.hiding import form_of
from runtime.store.layers.header import BLOCK, NO_XATTRS
from runtime.store.layers.lowers import Lowers
from runtime.store.layers.writer import DiffInfo, LayerWriter

_CHUNK = 1 << 20
_SMALL = 16 << 10  # what is read beside us: above that, reading is not what takes the time
_WORTH_ASKING, _OWN_SHARE, _AT_ONCE = 8, 8, 256
_LISTED = 20_000  # entries of a directory
# Attributes with which overlayfs says that the content is elsewhere: such a directory cannot become a layer.
_ELSEWHERE = ("trusted.overlay.redirect", "trusted.overlay.metacopy")


def write_layer(
    directory: str, out: BinaryIO, *, epoch: int | None = None, lowers: Sequence[str] = ()
) -> DiffInfo:
    """Write the layer's tar; the same bytes every time. A fault of `out` is its OSError, one of the tree a HostFault."""
    with LayerWriter(out, epoch=epoch) as writer:
        return _walk(directory, writer, lowers)


def hash_layer(
    directory: str, *, epoch: int | None = None, lowers: Sequence[str] = (), beside: Beside | None = None
) -> DiffInfo:
    """What `write_layer` would write, only hashed. `beside` reads small files at the same time."""
    with LayerWriter(None, epoch=epoch) as writer:
        return _walk(directory, writer, lowers, beside)


def add_tree(writer: LayerWriter, directory: str, prefix: bytes = b"") -> None:
    """Add all that is in a directory to an archive, below `prefix`, which gets the directory's own attributes. Faults as above."""
    try:
        if prefix:
            writer.add(prefix, os.lstat(directory))
        _Walk(os.fsencode(directory), writer, None).run(prefix)
    except OSError as error:
        if error is writer.fault:
            raise
        raise HostFault(f"cannot read the tree {directory}: {error}") from error


def _walk(
    directory: str, writer: LayerWriter, lowers: Sequence[str], beside: Beside | None = None
) -> DiffInfo:
    try:
        _Walk(os.fsencode(directory), writer, Lowers(lowers) if lowers else None, beside).run()
        writer.flush()
    except OSError as error:
        if error is writer.fault:
            raise
        raise HostFault(f"cannot read the layer {directory}: {error}") from error
    return writer.finish()


def layer_xattrs(path: bytes, names: Sequence[str] | None = None) -> Mapping[str, bytes]:
    """The extended attributes that belong into a layer: file capabilities and those of users."""
    found = {}
    for name in os.listxattr(path, follow_symlinks=False) if names is None else names:
        if name == "security.capability" or (
            name.startswith("user.") and not name.startswith("user.overlay.")
        ):
            found[name] = os.getxattr(path, name, follow_symlinks=False)
    return found or NO_XATTRS


class Beside(Protocol):
    """Somebody who reads small files while we do something else. Answers come in the order of the questions."""

    def ask(self, directory: bytes, files: Sequence[tuple[bytes, int]]) -> bool: ...
    def answer(self) -> Sequence[bytes | None]: ...


class _Asked:
    """Files of one directory that somebody else reads."""

    def __init__(
        self, walk: _Walk, full: bytes, prefix: bytes, files: list[tuple[bytes, os.stat_result]]
    ) -> None:
        self._walk, self._full, self._prefix, self._files = walk, full, prefix, files

    def parts(self) -> list[bytes]:
        found = self._walk.answer() or [None] * len(self._files)
        parts: list[bytes] = []
        for (name, status), data in zip(self._files, found, strict=True):
            parts += self._walk.parts(self._full + b"/" + name, self._prefix + name, status, data)
        return parts


class _Walk:
    def __init__(
        self, root: bytes, writer: LayerWriter, lowers: Lowers | None, beside: Beside | None = None
    ) -> None:
        self._root, self._writer, self._lowers, self._beside = root, writer, lowers, beside
        self._form = form_of(root)
        # Directories that may turn out to be unchanged: written as soon as something in them is.
        self._held: list[tuple[bytes, os.stat_result, Mapping[str, bytes]]] = []

    def run(self, prefix: bytes = b"") -> None:
        self._directory(self._root, prefix, self._is_opaque(self._root, os.listxattr(self._root)))

    def _directory(self, full: bytes, path: bytes, opaque: bool) -> None:
        if opaque:
            self._release()
            self._writer.opaque(path)
        prefix = path + b"/" if path else b""
        is_whiteout = self._form.is_whiteout
        found = _listed(full)
        for name, status in found:
            if is_whiteout(status) and not self._form.is_mark(name):
                self._release()
                self._writer.whiteout(prefix + name)
        small: list[tuple[bytes, os.stat_result]] = []  # one after the other
        for name, status in found:
            if is_whiteout(status):
                continue
            is_small = self._beside is not None and _is_small(status) and status.st_size <= _SMALL
            if small and (not is_small or len(small) >= _AT_ONCE):
                self._small_ones(full, prefix, small)
                small = []
            if is_small:
                small.append((name, status))
            else:
                self._entry(full + b"/" + name, prefix + name, status)
        self._small_ones(full, prefix, small)

    def _small_ones(self, full: bytes, prefix: bytes, files: list[tuple[bytes, os.stat_result]]) -> None:
        """Leave most of them to the one beside us, who has less to do for each."""
        own = len(files) // _OWN_SHARE if len(files) >= _WORTH_ASKING else len(files)
        asked = files[own:]
        if asked and not self._ask(full, asked):
            own, asked = len(files), []
        for name, status in files[:own]:
            self._entry(full + b"/" + name, prefix + name, status)
        if asked:
            if self._held:
                self._release()
            size = sum(status.st_size for _, status in asked) + 2 * BLOCK * len(asked)
            self._writer.add_later(_Asked(self, full, prefix, asked), len(asked), size)

    def _ask(self, full: bytes, files: list[tuple[bytes, os.stat_result]]) -> bool:
        names = [(name, status.st_size) for name, status in files]
        return self._beside is not None and self._beside.ask(full, names)

    def answer(self) -> Sequence[bytes | None]:
        assert self._beside is not None
        return self._beside.answer()

    def parts(self, full: bytes, path: bytes, status: os.stat_result, data: bytes | None) -> Sequence[bytes]:
        """Of a small file; who was asked for it may not have it, as when it has attributes."""
        xattrs = NO_XATTRS
        if data is None:
            xattrs, data = _attributes_of(full), _read_whole(full, status.st_size)
        mode = stat.S_IMODE(status.st_mode)
        return self._writer.file_parts(
            path, mode, status.st_uid, status.st_gid, status.st_mtime_ns, data, xattrs
        )

    def _entry(self, full: bytes, path: bytes, status: os.stat_result) -> None:
        if _is_small(status):
            if self._held:
                self._release()
            if self._small(full, path, status):
                return
        names = os.listxattr(full, follow_symlinks=False)
        xattrs = _attributes_of(full, names)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self._subdirectory(full, path, status, xattrs, self._is_opaque(full, names))
            return
        if self._held:
            self._release()
        if stat.S_ISREG(mode):
            self._regular(full, path, status, xattrs)
        elif stat.S_ISLNK(mode):
            self._writer.add(path, status, target=os.readlink(full), xattrs=xattrs)
        else:
            self._writer.add(path, status, xattrs=xattrs)

    def _subdirectory(
        self, full: bytes, path: bytes, status: os.stat_result, xattrs: Mapping[str, bytes], opaque: bool
    ) -> None:
        self._held.append((path, status, xattrs))
        depth = len(self._held)
        if self._lowers is None:
            self._release()
        else:
            below = self._lowers.directory(path)
            # overlayfs also marks directories that hide nothing: renamed ones and, in some versions, all new ones.
            opaque = opaque and below is not None
            if opaque or below is None or not self._lowers.is_same(below, status, xattrs):
                self._release()
        self._directory(full, path, opaque)
        if len(self._held) == depth:
            self._held.pop()  # nothing below it was written: it is as it was

    def _release(self) -> None:
        for path, status, xattrs in self._held:
            self._writer.add(path, status, xattrs=xattrs)
        self._held.clear()

    def _small(self, full: bytes, path: bytes, status: os.stat_result) -> bool:
        """Add a file that is read at once; False, and nothing done, where it has attributes or is not as long as it was."""
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.listxattr(descriptor):
                return False
            data = os.read(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        if len(data) != status.st_size:
            return False
        self._writer.add_file(
            path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, data
        )
        return True

    def _regular(self, full: bytes, path: bytes, status: os.stat_result, xattrs: Mapping[str, bytes]) -> None:
        writer, size = self._writer, status.st_size
        if not size or writer.known_link(status):
            writer.add(path, status, b"", xattrs=xattrs)
            return
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if size <= _CHUNK:
                data = os.read(descriptor, size)
                if len(data) == size:
                    writer.add(path, status, data, xattrs=xattrs)
                    return
                os.lseek(descriptor, 0, os.SEEK_SET)
            writer.add(path, status, xattrs=xattrs)
            _copy(descriptor, writer, size)
        finally:
            os.close(descriptor)

    def _is_opaque(self, full: bytes, names: Sequence[str]) -> bool:
        return self._form.may_be_opaque(names) and self._form.is_opaque(full)


def _listed(directory: bytes) -> Iterable[tuple[bytes, os.stat_result]]:
    """Names and statuses, sorted; to be gone through several times.

    From the directory's descriptor: the way there need not be gone again for each.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(handle) as entries:
            found = [
                (os.fsencode(entry.name), entry.stat(follow_symlinks=False))
                for entry in islice(entries, _LISTED)
            ]
            more = [os.fsencode(entry.name) for entry in entries]
    finally:
        os.close(handle)
    if more:
        more += [name for name, _ in found]
        more.sort()
        return _Large(directory, more)
    found.sort()
    return found


class _Large:
    """A directory of very many entries: looked at each time, for what is known of one takes ten times its name's memory."""

    def __init__(self, full: bytes, names: Sequence[bytes]) -> None:
        self._full, self._names = full, names

    def __iter__(self) -> Iterator[tuple[bytes, os.stat_result]]:
        for name in self._names:
            yield name, os.lstat(self._full + b"/" + name)


def _is_small(status: os.stat_result) -> bool:
    """A regular file with one name that is read at once."""
    return status.st_nlink == 1 and 0 < status.st_size <= _CHUNK and stat.S_ISREG(status.st_mode)


def _attributes_of(full: bytes, names: Sequence[str] | None = None) -> Mapping[str, bytes]:
    names = os.listxattr(full, follow_symlinks=False) if names is None else names
    if any(name in _ELSEWHERE for name in names):
        raise HostFault(f"{os.fsdecode(full)} is only a redirect of overlayfs")
    return layer_xattrs(full, names) if names else NO_XATTRS


def _read_whole(full: bytes, size: int) -> bytes:
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, size)
    finally:
        os.close(descriptor)
    if len(data) < size:
        raise OSError(errno.EIO, "a file became shorter while it was read")
    return data


def _copy(descriptor: int, writer: LayerWriter, size: int) -> None:
    while size:
        chunk = os.read(descriptor, min(size, _CHUNK))
        if not chunk:
            raise OSError(errno.EIO, "a file became shorter while it was read")
        writer.write(chunk)
        size -= len(chunk)
