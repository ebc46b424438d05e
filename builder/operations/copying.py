"""Put selected files into a root: the engine of COPY and ADD.

Every regular file is read once: that pass fills the copy, its content digest (for the cache key) and, where a layer is
being written, the layer's tar. Directories get their times last. Nothing is synced; the store does that when it must.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from builder.operations.feed import NO_XATTRS, LayerFeed
from builder.operations.modes import ChangeMode
from builder.operations.owners import Owner
from builder.operations.roots import Root
from builder.operations.selection import Item
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, PipeError

if TYPE_CHECKING:
    from builder.operations.copyworker import CopyWorker

CHUNK = 1 << 20
_CHECK_EVERY = 256


class Digests(Protocol):
    """Where content digests come from and go to."""

    def know(self, status: os.stat_result) -> bytes | None: ...

    def learn(self, status: os.stat_result, digest: bytes) -> None: ...


class Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@frozen
class Style:
    """How what is copied shall look. None keeps what the source has; `newest_ns` is the latest time a file may carry."""

    owner: Owner | None = None
    change_mode: ChangeMode | None = None
    newest_ns: int | None = None
    directory_ns: int = 0  # of directories that are made on the way

    def mode(self, status: os.stat_result) -> int:
        mode = stat.S_IMODE(status.st_mode)
        return mode if self.change_mode is None else self.change_mode(mode, stat.S_ISDIR(status.st_mode))

    def mtime_ns(self, status: os.stat_result) -> int:
        time_ns = status.st_mtime_ns
        return time_ns if self.newest_ns is None else min(time_ns, self.newest_ns)


class Copier:
    """Copies items into one root. Not for several threads."""

    def __init__(
        self,
        root: Root,
        style: Style,
        digests: Digests | None = None,
        cancel: Cancel | None = None,
        feed: LayerFeed | None = None,
        worker: CopyWorker | None = None,
    ) -> None:
        self._worker = worker
        self._root, self._style, self._digests, self._feed = root, style, digests, feed
        self._cancel = cancel or Cancel()
        self._links: dict[tuple[int, int], str] = {}
        self._umask = _current_umask()
        self._count = 0
        self._upper, self._parent, self._fresh = f"{root.upper}/", "\0", False
        self._foreign_group = False
        self.contents: dict[tuple[int, int], bytes] = {}  # (device, inode) of what was read -> its digest

    def place(self, item: Item, target: str) -> None:
        """Put one item at the path `target` of the root, whose parent is there."""
        self._count += 1
        if self._count % _CHECK_EVERY == 0:
            self._cancel.check()
        kind = stat.S_IFMT(item.status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(item, target)
            return
        if kind == stat.S_IFSOCK:
            return
        parent = target.rpartition("/")[0]
        if parent != self._parent:
            self._root.raise_up(parent)
            # Files come directory by directory: these two are worth remembering.
            self._parent, self._fresh = parent, self._root.is_fresh(parent)
            # A new file in a set-group-id directory gets that group (open(2)), not ours.
            self._foreign_group = bool(os.stat(f"{self._upper}{parent}").st_mode & stat.S_ISGID)
        if not self._fresh:
            self._check_no_directory(target)
        place = f"{self._upper}{target}"
        try:
            self._create(item, target, kind, place)
        except FileExistsError:
            # Copied twice to the same name in this step: the later one stays.
            os.unlink(place)
            if self._feed is not None:
                self._feed.abandon()
            self._create(item, target, kind, place)
        except FileNotFoundError as error:
            raise _changed(item) from error

    def _create(self, item: Item, target: str, kind: int, place: str) -> None:
        if self._linked(item, place):
            self._tell(item, target)
        elif kind == stat.S_IFREG:
            self._file(item, target, place)
        elif kind == stat.S_IFLNK:
            link = os.readlink(item.path)
            os.symlink(link, place)
            self._finish_special(item, place, is_link=True)
            self._tell(item, target, link=link)
        else:
            os.mknod(place, item.status.st_mode, item.status.st_rdev)
            self._finish_special(item, place, is_link=False)
            self._tell(item, target)

    def _tell(
        self,
        item: Item,
        target: str,
        *,
        data: bytes | None = b"",
        link: str = "",
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> None:
        """Add an entry to the layer that is being fed, if one is."""
        if self._feed is None or not self._feed.alive:
            return
        style, status = self._style, item.status
        mode = stat.S_IMODE(status.st_mode) if link else style.mode(status)
        owner = self._owner(status)
        self._feed.add(
            target, mode, owner, style.mtime_ns(status), status, data=data, target=link, xattrs=xattrs
        )

    def _owner(self, status: os.stat_result) -> Owner:
        return self._style.owner or Owner(status.st_uid, status.st_gid)

    def _directory(self, item: Item, target: str) -> None:
        style, status = self._style, item.status
        uid, gid = self._owner(status)
        present = self._root.directories(target)
        if not present:
            if self._root.locate(target) is not None:
                raise InvalidInput(f"cannot copy a directory onto /{target}, which is none")
            mode, mtime_ns = style.mode(status), style.mtime_ns(status)
            place = self._root.make_directory(target, mode, uid, gid, mtime_ns)
            copy_visible_xattrs(item.path, place)
            if self._feed is not None:
                self._feed.directory(target, mode, uid, gid, mtime_ns, place)
        else:
            if self._feed is not None:
                self._feed.abandon()
            place = self._root.raise_up(target)
            os.chown(place, uid, gid)
            os.chmod(place, style.mode(status))
            self._root.set_times(target, style.mtime_ns(status))
            copy_visible_xattrs(item.path, place)

    def _check_no_directory(self, target: str) -> None:
        if self._root.directories(target):
            raise InvalidInput(f"cannot copy a file onto the directory /{target}")

    def _linked(self, item: Item, place: str) -> bool:
        """The second name of a file that was copied already becomes a hard link to the first."""
        if item.status.st_nlink < 2:
            return False
        key = (item.status.st_dev, item.status.st_ino)
        first = self._links.setdefault(key, place)
        if first == place:
            return False
        os.link(first, place, follow_symlinks=False)
        return True

    def _file(self, item: Item, target: str, place: str) -> None:
        style = self._style
        try:
            source = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(item, error) from error
        try:
            if self._worker is not None and self._left_to_worker(self._worker, item, target, source, place):
                return
            mode = style.mode(item.status)
            copy = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o777)
            try:
                xattrs = _visible(source)
                self._transfer(item, target, source, copy, xattrs)
                uid, gid = style.owner or (item.status.st_uid, item.status.st_gid)
                given = uid or gid or self._foreign_group
                if given:
                    os.fchown(copy, uid, gid)
                if mode & ~0o777 or mode & self._umask or given:
                    os.fchmod(copy, mode)
                for name, value in xattrs.items():
                    os.setxattr(copy, name, value)
                mtime_ns = style.mtime_ns(item.status)
                os.utime(copy, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def _left_to_worker(self, worker: CopyWorker, item: Item, target: str, source: int, place: str) -> bool:
        """Read and hash the file here while the helper writes the copy. Only where nothing special is to be done."""
        status, style = item.status, self._style
        if not self._fresh or self._foreign_group or not worker.takes(status) or _visible(source):
            return False
        data = os.read(source, status.st_size + 1)
        if len(data) != status.st_size:
            raise _changed(item)
        uid, gid = self._owner(status)
        worker.copy(item.path, place, style.mode(status), uid, gid, style.mtime_ns(status), status)
        self._note(status, data)
        self._tell(item, target, data=data)
        return True

    def _note(self, status: os.stat_result, data: bytes) -> None:
        digest = None if self._digests is None else self._digests.know(status)
        if digest is None:
            digest = hashlib.sha256(data).digest()
            if self._digests is not None:
                self._digests.learn(status, digest)
        self.contents[(status.st_dev, status.st_ino)] = digest

    def _transfer(self, item: Item, name: str, source: int, target: int, xattrs: Mapping[str, bytes]) -> None:
        status = item.status
        digest = None if self._digests is None else self._digests.know(status)
        # One byte more than there should be: a file that grew is noticed, and nothing large is allocated for a small one.
        data = os.read(source, min(status.st_size + 1, CHUNK))
        if len(data) < CHUNK:
            if len(data) != status.st_size:
                raise _changed(item)
            hasher = None if digest else hashlib.sha256(data)
            os.write(target, data)
            self._tell(item, name, data=data, xattrs=xattrs)
        else:
            hasher = None if digest else hashlib.sha256()
            self._tell(item, name, data=None, xattrs=xattrs)
            if self._transfer_long(item, source, target, data, hasher) != status.st_size:
                raise _changed(item)
        if hasher is not None:
            digest = with_xattrs(hasher.digest(), xattrs)
            if self._digests is not None:
                self._digests.learn(status, digest)
        if digest is not None:
            self.contents[(status.st_dev, status.st_ino)] = digest

    def _transfer_long(self, item: Item, source: int, target: int, data: bytes, hasher: Hasher | None) -> int:
        copied = 0
        while data:
            self._cancel.check()
            if copied + len(data) > item.status.st_size:
                raise _changed(item)
            if self._feed is not None:
                self._feed.write(data)
            if hasher is not None:
                hasher.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]
            copied += len(data)
            data = os.read(source, CHUNK)
        return copied

    def _finish_special(self, item: Item, place: str, *, is_link: bool) -> None:
        uid, gid = self._owner(item.status)
        os.chown(place, uid, gid, follow_symlinks=False)
        if not is_link:
            os.chmod(place, self._style.mode(item.status))
        mtime_ns = self._style.mtime_ns(item.status)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def read_digest(item: Item, digests: Digests, cancel: Cancel | None = None) -> bytes:
    """The content digest of a regular file, read only if it is not remembered."""
    known = digests.know(item.status)
    if known is not None:
        return known
    try:
        handle = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(item, error) from error
    with open(handle, "rb", buffering=0) as file:
        hasher = hashlib.sha256()
        while data := file.read(CHUNK):
            hasher.update(data)
            if cancel is not None and len(data) == CHUNK:
                cancel.check()
        digest = with_xattrs(hasher.digest(), _visible(handle))
    digests.learn(item.status, digest)
    return digest


def with_xattrs(digest: bytes, found: Mapping[str, bytes]) -> bytes:
    """The digest of a file's data together with the extended attributes a layer carries, if it has any."""
    if not found:
        return digest
    values = b"".join(os.fsencode(name) + b"\0" + found[name] + b"\0" for name in sorted(found))
    return hashlib.sha256(digest + values).digest()


def copy_visible_xattrs(source: str, target: str) -> None:
    """What a layer carries of extended attributes."""
    for name, value in _visible(source).items():
        os.setxattr(target, name, value)


def _visible(source: str | int) -> Mapping[str, bytes]:
    names = os.listxattr(source)
    if not names:
        return NO_XATTRS
    return {
        name: os.getxattr(source, name) for name in names if name.startswith(("user.", "security.capability"))
    }


def _unreadable(item: Item, error: OSError) -> PipeError:
    # ELOOP: what was a file is a link now, which O_NOFOLLOW refuses.
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return _changed(item)
    return InvalidInput(f"cannot read {item.path}: {error.strerror}")


def _changed(item: Item) -> PipeError:
    return changed_while_read(item.path)


def changed_while_read(path: str) -> PipeError:
    return InvalidInput(f"{path} changed while it was read", hint="build again when nothing writes there")


def _current_umask() -> int:
    """The process's umask, read without changing it (proc(5), Linux 4.7)."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777
