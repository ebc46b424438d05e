"""Put selected files into a root: the engine of COPY and ADD.

Every regular file is read once: that pass fills the copy, its content digest (for the cache key) and, where a layer is
being written, the layer's tar. A file that an earlier snapshot has as it shall be is a hard link to it, and is read there.
Directories get their times last. Nothing is synced; the store does that when it must.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from builder.operations.feed import NO_XATTRS, LayerFeed
from builder.operations.linking import link_all, link_or_copy
from builder.operations.modes import ChangeMode
from builder.operations.owners import Owner
from builder.operations.regular import (
    CHUNK,
    copy_visible_xattrs,
    digest_of_data,
    read_digest,
    stream,
    visible,
    with_xattrs,
    write_all,
)
from builder.operations.roots import Root
from builder.operations.walking import Item, Stretch, changed_while_read, unreadable
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from builder.content import ContentWriter
    from builder.digests import Directory, Memory
    from builder.operations.copyworker import CopyWorker
    from builder.operations.reuse import Earlier

HELPED_FROM = 128  # files: below that a second process does not pay
_CHECK_EVERY = 256


@frozen
class Style:
    """How what is copied shall look. None keeps what the source has; `newest_ns` is the latest time a file may carry."""

    owner: Owner | None = None
    change_mode: ChangeMode | None = None
    newest_ns: int | None = None
    made_mode: int = 0o755  # of directories that are made on the way, and their time
    directory_ns: int = 0

    def mode(self, mode: int) -> int:
        """The permissions of what has the mode `st_mode`."""
        bits = stat.S_IMODE(mode)
        return bits if self.change_mode is None else self.change_mode(bits, stat.S_ISDIR(mode))

    def as_copied(self, fingerprint: bytes) -> bytes:
        """The fingerprint of a stretch together with what of this style no cache key tells: names of owners were looked up."""
        owner = b"" if self.owner is None else b"%d:%d" % self.owner
        return hashlib.sha256(fingerprint + owner).digest()

    def mtime_ns(self, time_ns: int) -> int:
        return time_ns if self.newest_ns is None else min(time_ns, self.newest_ns)


class Copier:
    """Copies items into one root. Not for several threads.

    What the snapshot `earlier` has as it would come to be here is linked to. `helper` starts the process that writes
    copies and links, once there are many.
    """

    def __init__(
        self,
        root: Root,
        style: Style,
        memory: Memory,
        cancel: Cancel | None = None,
        feed: LayerFeed | None = None,
        helper: Callable[[], CopyWorker] | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        self._root, self._style, self._memory, self._feed = root, style, memory, feed
        self._helper, self._earlier = helper, earlier
        self._worker: CopyWorker | None = None
        self._cancel = cancel or Cancel()
        self._links: dict[tuple[int, int], tuple[str, bytes]] = {}
        self._umask = _current_umask()
        self.count = 0  # of what was placed
        self._upper, self._parent, self._fresh = f"{root.upper}/", "\0", False
        self._foreign_group = False
        self._plain = True  # no file of this stretch has several names or attributes
        self._untouched = False  # this stretch is as it was when `earlier` was made of it

    def place_stretch(self, stretch: Stretch, prefix: str, content: ContentWriter) -> None:
        """Put the directory and the files of a stretch into the root, their names behind `prefix`; take them into `content`."""
        if (directory := stretch.directory) is not None:
            content.directory(directory)
            self.place(directory, prefix + directory.name)
        if stretch.is_filled:
            self._place_files(stretch, None, prefix, content)

    def place_single(self, stretch: Stretch, target: str, content: ContentWriter) -> None:
        """Put the only file of a stretch at the path `target` of the root, whose parent is there."""
        self._place_files(stretch, target, "", content)

    def _place_files(self, stretch: Stretch, target: str | None, prefix: str, content: ContentWriter) -> None:
        if target is None and self._is_linked(stretch, prefix, content):
            return
        stretch, memory = stretch.anew(), self._memory
        if not stretch.is_filled:
            return
        files, fingerprint = memory.directory(stretch.inode), memory.fingerprint(stretch, content.flavour)
        copied, known = self._style.as_copied(fingerprint), memory.know_stretch(fingerprint)
        self._plain = True
        self._untouched = self._earlier is not None and copied in self._earlier.stretches
        digests = [self.place(item, target or prefix + item.name, files) for item in stretch.files()]
        digest = content.files(stretch, digests)
        if known is None:
            known = memory.learn_stretch(fingerprint, stretch.statuses, digest)
        if self._plain and known == digest:
            content.copied.append(copied)

    def place(self, item: Item, target: str, files: Directory | None = None) -> bytes:
        """Put one item at the path `target` of the root, whose parent is there.

        With `files`, what is known of the files of its directory, the content digest of a regular file; else nothing.
        """
        self.count += 1
        if self.count % _CHECK_EVERY == 0:
            self._cancel.check()
        kind = stat.S_IFMT(item.status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(item, target)
            return b""
        if kind == stat.S_IFSOCK:
            return b""
        parent = target.rpartition("/")[0]
        if parent != self._parent:
            self._enter(parent)
        if not self._fresh:
            self._check_no_directory(target)
        place = f"{self._upper}{target}"
        try:
            return self._create(item, target, kind, place, files)
        except FileExistsError:
            # Copied twice to the same name in this step: the later one stays.
            os.unlink(place)
            if self._feed is not None:
                self._feed.abandon()
            return self._create(item, target, kind, place, files)
        except FileNotFoundError as error:
            raise changed_while_read(item.path) from error

    def _enter(self, parent: str) -> None:
        """Files come directory by directory: what is the same for all of one is found out once."""
        self._root.raise_up(parent)
        self._parent, self._fresh = parent, self._root.is_fresh(parent)
        # A new file in a set-group-id directory gets that group (open(2)), not ours.
        self._foreign_group = bool(os.stat(f"{self._upper}{parent}").st_mode & stat.S_ISGID)
        if self._earlier is not None:
            self._earlier.enter(parent)

    def _create(self, item: Item, target: str, kind: int, place: str, files: Directory | None) -> bytes:
        several = item.status.st_nlink > 1
        if several:
            self._plain = False
        if several and (first := self._links.get((item.status.st_dev, item.status.st_ino))) is not None:
            # Another name of a file that was copied already.
            os.link(first[0], place, follow_symlinks=False)
            self._tell(item, target)
            return first[1]
        digest = b""
        if kind == stat.S_IFREG:
            digest = self._file(item, target, place, files)
        elif kind == stat.S_IFLNK:
            link = os.readlink(item.path)
            os.symlink(link, place)
            self._finish_special(item, place, is_link=True)
            self._tell(item, target, link=link)
        else:
            os.mknod(place, item.status.st_mode, item.status.st_rdev)
            self._finish_special(item, place, is_link=False)
            self._tell(item, target)
        if several:
            self._links[(item.status.st_dev, item.status.st_ino)] = place, digest
        return digest

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
        mode = stat.S_IMODE(status.st_mode) if link else style.mode(status.st_mode)
        owner = self._owner(status)
        self._feed.add(
            target,
            mode,
            owner,
            style.mtime_ns(status.st_mtime_ns),
            status,
            data=data,
            target=link,
            xattrs=xattrs,
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
            mode, mtime_ns = style.mode(status.st_mode), style.mtime_ns(status.st_mtime_ns)
            place = self._root.make_directory(target, mode, uid, gid, mtime_ns)
            _copy_attributes(item.path, place)
            if self._feed is not None:
                self._feed.directory(target, mode, uid, gid, mtime_ns, place)
        else:
            if self._feed is not None:
                self._feed.abandon()
            place = self._root.raise_up(target)
            os.chown(place, uid, gid)
            os.chmod(place, style.mode(status.st_mode))
            self._root.set_times(target, style.mtime_ns(status.st_mtime_ns))
            _copy_attributes(item.path, place)

    def _check_no_directory(self, target: str) -> None:
        if self._root.directories(target):
            raise InvalidInput(f"cannot copy a file onto the directory /{target}")

    def _finish_special(self, item: Item, place: str, *, is_link: bool) -> None:
        uid, gid = self._owner(item.status)
        os.chown(place, uid, gid, follow_symlinks=False)
        if not is_link:
            os.chmod(place, self._style.mode(item.status.st_mode))
        mtime_ns = self._style.mtime_ns(item.status.st_mtime_ns)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    # --- regular files --------------------------------------------------------------------------------------------

    def _file(self, item: Item, target: str, place: str, files: Directory | None) -> bytes:
        known = b"" if files is None else files.know(item.status)
        if known and self._earlier is not None and self._reused(item, target, place, known):
            return known
        try:
            source = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(item.path, error) from error
        try:
            digest = self._copied(item, target, place, source, known)
        finally:
            os.close(source)
        if known is None and files is not None:
            files.learn(item.status, digest)
        return digest

    def _copied(self, item: Item, target: str, place: str, source: int, known: bytes | None) -> bytes:
        status, xattrs = item.status, visible(source)
        if xattrs:
            self._plain = False
        # One byte more than there should be: a file that grew is noticed, and nothing large is allocated for a small one.
        data = os.read(source, min(status.st_size + 1, CHUNK))
        if len(data) < CHUNK:
            if len(data) != status.st_size:
                raise changed_while_read(item.path)
            if not self._left_to_worker(item, place, xattrs):
                copy = self._open_copy(item, place)
                try:
                    write_all(copy, data)
                    self._finish(copy, item, xattrs)
                finally:
                    os.close(copy)
            self._tell(item, target, data=data, xattrs=xattrs)
            return digest_of_data(data, xattrs) if known is None else known
        copy = self._open_copy(item, place)
        try:
            self._tell(item, target, data=None, xattrs=xattrs)
            digest = stream(source, item, data, self._feed, self._cancel, copy=copy, digest=known is None)
            self._finish(copy, item, xattrs)
        finally:
            os.close(copy)
        return with_xattrs(digest, xattrs) if known is None else known

    def _open_copy(self, item: Item, place: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(place, flags, self._style.mode(item.status.st_mode) & 0o777)

    def _finish(self, copy: int, item: Item, xattrs: Mapping[str, bytes]) -> None:
        """Owner, mode, attributes and time of a copy that was written."""
        style, status = self._style, item.status
        mode = style.mode(status.st_mode)
        uid, gid = self._owner(status)
        given = uid or gid or self._foreign_group
        if given:
            os.fchown(copy, uid, gid)
        if mode & ~0o777 or mode & self._umask or given:
            os.fchmod(copy, mode)
        for name, value in xattrs.items():
            os.setxattr(copy, name, value)
        mtime_ns = style.mtime_ns(status.st_mtime_ns)
        os.utime(copy, ns=(mtime_ns, mtime_ns))

    def _left_to_worker(self, item: Item, place: str, xattrs: Mapping[str, bytes]) -> bool:
        """Have the helper write the copy of a small file. Only where nothing special is to be done."""
        status, style, worker = item.status, self._style, self._helping()
        if worker is None or xattrs or self._foreign_group or not worker.takes(status):
            return False
        uid, gid = self._owner(status)
        worker.copy(
            item.path, place, style.mode(status.st_mode), uid, gid, style.mtime_ns(status.st_mtime_ns), status
        )
        return True

    def _helping(self) -> CopyWorker | None:
        """The helper, where files are new in their directory: it would not know what to do with one that is there."""
        if self._worker is None and self._helper is not None and self.count >= HELPED_FROM:
            self._worker = self._helper()
        return self._worker if self._fresh else None

    def _reused(self, item: Item, target: str, place: str, digest: bytes) -> bool:
        """Make a link to the earlier snapshot's file, if that is just what a copy would be."""
        earlier, style, status = self._earlier, self._style, item.status
        assert earlier is not None
        name = target.rpartition("/")[2]
        if self._untouched:
            handle = earlier.open_untouched(name)
        else:
            uid, gid = self._owner(status)
            handle = earlier.open(
                name, status.st_size, style.mode(status.st_mode), uid, gid, style.mtime_ns(status.st_mtime_ns)
            )
        if handle is None:
            return False
        try:
            if not self._is_content(item, target, handle, digest):
                return False
        finally:
            os.close(handle)
        worker = self._helping() if status.st_nlink == 1 else None
        if worker is not None:
            worker.link(earlier.take(name), place)
        else:
            link_or_copy(earlier.take(name), place)
        return True

    def _is_linked(self, stretch: Stretch, prefix: str, content: ContentWriter) -> bool:
        """`_place_files` in one go, for a stretch that is as it was when the earlier snapshot was made of it: of a large
        context nearly all are. False, and nothing done, for any other.
        """
        memory, earlier, feed, owner = self._memory, self._earlier, self._feed, self._style.owner
        if earlier is None or owner is None or feed is None or not feed.alive:
            return False
        fingerprint = memory.fingerprint(stretch, content.flavour)
        copied, known = self._style.as_copied(fingerprint), memory.know_stretch(fingerprint)
        if copied not in earlier.stretches or known is None:
            return False
        is_taken = content.takes_known(known)
        if not is_taken and not stretch.names:
            return False  # its lines are wanted, and all that is at hand is what it hashes to
        self._enter((prefix + stretch.prefix).rstrip("/"))
        if not self._fresh:
            return False
        self._plain = self._untouched = True
        self._link_all(stretch, prefix + stretch.prefix, owner, earlier, feed)
        if is_taken:
            content.known(known)
        else:
            files = memory.directory(stretch.inode)
            digests = [read_digest(item, files, self._cancel) for item in stretch.files()]
            if content.files(stretch, digests) != known:
                raise changed_while_read(stretch.path)
        content.copied.append(copied)
        return True

    def _link_all(
        self, stretch: Stretch, prefix: str, owner: Owner, earlier: Earlier, feed: LayerFeed
    ) -> None:
        """What a layer cannot be told of in one piece, or the snapshot lacks, is placed one by one."""
        style, linked = self._style, []
        for number, (name, mode, mtime_ns, data) in enumerate(earlier.read_all(stretch, CHUNK)):
            if data is None:
                self.place(stretch.item(number), prefix + name, self._memory.directory(stretch.inode))
                continue
            feed.add_file(prefix + name, style.mode(mode), owner, style.mtime_ns(mtime_ns), data)
            linked.append(name)
        self.count += len(linked)
        if linked:
            worker = self._helping()
            link = link_all if worker is None else worker.link_all
            link(earlier.place, f"{self._upper}{self._parent}", linked)
        self._cancel.check()

    def _is_content(self, item: Item, target: str, handle: int, digest: bytes) -> bool:
        """Whether an open file has this content; the layer is told of it."""
        sure = self._untouched
        xattrs = NO_XATTRS if sure else visible(handle)
        if xattrs:
            self._plain = False
        data = os.read(handle, min(item.status.st_size + 1, CHUNK))
        if len(data) < CHUNK:
            if len(data) != item.status.st_size or not (sure or digest_of_data(data, xattrs) == digest):
                return False
            self._tell(item, target, data=data, xattrs=xattrs)
            return True
        # Too long to be held until it is known: if the guess was wrong, the layer is hashed from the directory.
        self._tell(item, target, data=None, xattrs=xattrs)
        found = stream(handle, item, data, self._feed, self._cancel, copy=None, digest=not sure)
        if sure or with_xattrs(found, xattrs) == digest:
            return True
        if self._feed is not None:
            self._feed.abandon()
        return False


def _copy_attributes(source: str, place: str) -> None:
    try:
        copy_visible_xattrs(source, place)
    except FileNotFoundError as error:
        raise changed_while_read(source) from error


def _current_umask() -> int:
    """The process's umask, read without changing it (proc(5), Linux 4.7)."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777
