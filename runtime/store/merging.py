"""Put layers together in a directory of our own, where the kernel does not: by copying, or by hard links for readers only.

`Merged` takes the layers bottom first. Of all it makes it notes the inode and its change time, which no program can set, so
that `runtime.store.changes` sees afterwards what was written, whatever times the writer gave it. Data is shared where the
file system can (FICLONE), else copied, holes left out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable

from runtime.linux.files import birth_time
from runtime.store.durable import remove_tree
from runtime.store.hiding import OVERLAY, Form, form_of

# A noted directory is [inode, change time, time of birth, entries]; its entries are name -> (inode, change time, source) of a
# file, None for a directory. Where a file system does not keep times of birth, a directory has the attribute MARK, and that is noted. `source` is where a file with several names was copied from, b"" for others. marshal(3) keeps it.
Noted = dict[bytes, list]  # type: ignore[type-arg]
INODE, CHANGED, BORN, ENTRIES = range(4)
MARK, MARKED = "trusted.pipe.noted", -1
_FICLONE = 0x40049409
_CHECKED_EVERY = 256  # files
_CARRIED = ("user.", "trusted.", "security.capability", "system.posix_acl_")
_NOT_CARRIED = ("trusted.overlay.", MARK)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_CLONED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM)
_NOT_LINKED = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP)


def unchecked() -> None:
    """The check of those nobody stops."""


class Merged:
    """A directory and what was noted of it; `noted` of an earlier one goes on with that. Paths are relative to `root`."""

    def __init__(
        self,
        root: str,
        noted: Noted | None = None,
        *,
        link: bool = False,
        check: Callable[[], None] = unchecked,
    ) -> None:
        self.root = root
        self.noted: Noted = {b"": [0, 0, 0, {}]} if noted is None else noted
        self.newest = 0  # change time of what was made last, ns
        self._top, self._link, self._check = os.fsencode(root), link, check
        self._count = self._device = 0
        self._clones = True
        self._form: Form = OVERLAY
        self._first: dict[tuple[int, int], bytes] = {}
        self._twins: list[tuple[dict[bytes, tuple[int, int, bytes] | None], bytes, bytes, bytes]] = []

    def add(self, layer: str) -> None:
        """Put a layer's directory over what is there. The root gets its attributes."""
        self._form = form_of(layer)
        self._first.clear()
        source = os.fsencode(layer)
        status = os.stat(source)
        self._device = status.st_dev
        self._directory(source, b"", status)
        for entries, name, full, origin in self._twins:
            # A further name changes the inode that has it.
            entries[name] = self._note(os.lstat(full), origin)
        self._twins.clear()

    def _full(self, path: bytes) -> bytes:
        return self._top + b"/" + path if path else self._top

    # --- directories ------------------------------------------------------------------------------------------------

    def _directory(self, source: bytes, path: bytes, model: os.stat_result) -> None:
        here = self.noted[path]
        entries = here[ENTRIES]
        full = self._full(path)
        if path and entries and self._form.is_opaque(source):
            for name in list(entries):
                self._remove(path, name)
        prefix = path + b"/" if path else b""
        with os.scandir(source) as listing:
            found = [(entry.name, entry.path, entry.stat(follow_symlinks=False)) for entry in listing]
        for name, place, status in found:
            if self._form.is_whiteout(status):
                if name in entries:
                    self._remove(path, name)
            elif stat.S_ISDIR(status.st_mode):
                if entries.get(name, b"") is not None:
                    self._make_directory(path, name)
                if status.st_dev == self._device:
                    self._directory(place, prefix + name, status)
                else:  # a mount in a directory of the host: an overlay does not show what is in it either
                    copy_attributes(place, self._full(prefix + name), status)
                    self.note_directory(prefix + name)
            else:
                if name in entries:
                    self._remove(path, name)
                self._file(place, full + b"/" + name, status, entries, name)
        copy_attributes(source, full, model)
        self.note_directory(path)

    def _make_directory(self, path: bytes, name: bytes) -> None:
        entries = self.noted[path][ENTRIES]
        if name in entries:
            self._remove(path, name)
        child = path + b"/" + name if path else name
        os.mkdir(self._full(child), 0o700)
        entries[name] = None
        self.noted[child] = [0, 0, 0, {}]

    def note_directory(self, path: bytes) -> None:
        """Note a directory as it is now."""
        full = self._full(path)
        here = self.noted[path]
        here[BORN] = here[BORN] or birth_time(full) or _mark(full)
        status = os.lstat(full)
        here[INODE], here[CHANGED] = status.st_ino, status.st_ctime_ns
        self.newest = max(self.newest, status.st_ctime_ns)

    def _remove(self, path: bytes, name: bytes) -> None:
        child = path + b"/" + name if path else name
        if self.noted[path][ENTRIES].pop(name) is None:
            remove_tree(os.fsdecode(self._full(child)))
            forget(self.noted, child)
        else:
            os.unlink(self._full(child))

    # --- mount points -----------------------------------------------------------------------------------------------

    def stub(self, source: bytes, directory: bytes, name: bytes) -> bytes:
        """Copy one empty thing into a noted directory, which keeps its times, and note it; its path."""
        full = self._full(directory)
        times = os.stat(full)
        path = directory + b"/" + name if directory else name
        entries = self.noted[directory][ENTRIES]
        status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode):
            self._make_directory(directory, name)
            copy_attributes(source, self._full(path), status)
            self.note_directory(path)
        else:
            entries[name] = self._note(self._copied(source, self._full(path), status), b"")
        self._restore(directory, times)
        return path

    def unstub(self, path: bytes) -> None:
        """Remove what `stub` made; OSError when it is not there or something is in it."""
        directory, _, name = path.rpartition(b"/")
        times = os.stat(self._full(directory))
        entries = self.noted[directory][ENTRIES] if directory in self.noted else {}
        if name not in entries:
            raise FileNotFoundError(errno.ENOENT, "changed meanwhile", os.fsdecode(path))
        if entries[name] is None:
            os.rmdir(self._full(path))
            del self.noted[path]
        else:
            os.unlink(self._full(path))
        del entries[name]
        self._restore(directory, times)

    def _restore(self, directory: bytes, times: os.stat_result) -> None:
        os.utime(self._full(directory), ns=(times.st_atime_ns, times.st_mtime_ns))
        self.note_directory(directory)

    # --- files ------------------------------------------------------------------------------------------------------

    def _file(
        self,
        source: bytes,
        target: bytes,
        status: os.stat_result,
        entries: dict[bytes, tuple[int, int, bytes] | None],
        name: bytes,
    ) -> None:
        self._count += 1
        if self._count % _CHECKED_EVERY == 0:
            self._check()
        if self._link and self._linked(source, target):
            entries[name] = (0, 0, b"")
            return
        if status.st_nlink > 1:
            first = self._first.setdefault((status.st_dev, status.st_ino), target)
            self._twins.append((entries, name, target, source))
            if first is not target:
                os.link(first, target, follow_symlinks=False)
                entries[name] = (0, 0, source)
                return
        made = self._copied(source, target, status)
        entries[name] = self._note(made, source if status.st_nlink > 1 else b"")

    def _note(self, status: os.stat_result, source: bytes) -> tuple[int, int, bytes]:
        self.newest = max(self.newest, status.st_ctime_ns)
        return status.st_ino, status.st_ctime_ns, source

    def _linked(self, source: bytes, target: bytes) -> bool:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_LINKED:
                raise
            return False
        return True

    def _copied(self, source: bytes, target: bytes, status: os.stat_result) -> os.stat_result:
        """Copy anything but a directory; the copy's status."""
        if stat.S_ISREG(status.st_mode):
            return self._copied_data(source, target, status)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        else:
            os.mknod(target, status.st_mode, status.st_rdev)
        copy_attributes(source, target, status)
        return os.lstat(target)

    def _copied_data(self, source: bytes, target: bytes, status: os.stat_result) -> os.stat_result:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            writing = os.open(target, _CREATE, 0o600)
            try:
                if status.st_size and not (self._clones and self._cloned(reading, writing)):
                    copy_data(reading, writing, status)
                os.fchown(writing, status.st_uid, status.st_gid)
                os.fchmod(writing, stat.S_IMODE(status.st_mode))
                for name in carried(os.listxattr(reading)):
                    os.setxattr(writing, name, os.getxattr(reading, name))
                os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
                return os.fstat(writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _cloned(self, reading: int, writing: int) -> bool:
        try:
            fcntl.ioctl(writing, _FICLONE, reading)
        except OSError as error:
            if error.errno not in _NOT_CLONED:
                raise
            self._clones = False  # nor will it for the next file
            return False
        return True


def forget(noted: Noted, path: bytes) -> None:
    """Drop what was noted of a directory and all below it."""
    here = noted.pop(path, None)
    if here is not None:
        for name, entry in here[ENTRIES].items():
            if entry is None:
                forget(noted, path + b"/" + name)


def carried(names: list[str]) -> list[str]:
    """The extended attributes a copy has too: not overlay's own nor ours, nor labels that the kernel gives by itself."""
    return [name for name in names if name.startswith(_CARRIED) and not name.startswith(_NOT_CARRIED)]


def _mark(directory: bytes) -> int:
    """Mark a directory, so that another one that gets its inode's number is not taken for it; 0 where that cannot be done."""
    try:
        os.setxattr(directory, MARK, b"")
    except OSError:
        return 0
    return MARKED


def is_marked(directory: bytes) -> bool:
    return MARK in os.listxattr(directory, follow_symlinks=False)


def copy_attributes(source: bytes, target: bytes, model: os.stat_result) -> None:
    """Owner, mode, times and extended attributes of what is no regular file; the attributes `target` had before go."""
    is_link = stat.S_ISLNK(model.st_mode)
    os.chown(target, model.st_uid, model.st_gid, follow_symlinks=False)
    if not is_link:
        os.chmod(target, stat.S_IMODE(model.st_mode))
    wanted = carried(os.listxattr(source, follow_symlinks=False))
    for name in carried(os.listxattr(target, follow_symlinks=False)):
        if name not in wanted:
            os.removexattr(target, name, follow_symlinks=False)
    for name in wanted:
        value = os.getxattr(source, name, follow_symlinks=False)
        os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(model.st_atime_ns, model.st_mtime_ns), follow_symlinks=False)


def copy_data(reading: int, writing: int, status: os.stat_result) -> None:
    """All data of a regular file, holes left as such."""
    if status.st_blocks * 512 >= status.st_size:
        _copy_range(reading, writing, 0, status.st_size)
        return
    at = 0
    while at < status.st_size:
        try:
            start = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole is left
        at = os.lseek(reading, start, os.SEEK_HOLE)
        _copy_range(reading, writing, start, at - start)
    os.ftruncate(writing, status.st_size)


def _copy_range(reading: int, writing: int, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        try:
            count = os.copy_file_range(reading, writing, end - offset, offset, offset)
        except OSError as error:
            if error.errno not in _NOT_CLONED:
                raise
            count = os.pwrite(writing, os.pread(reading, min(end - offset, 1 << 20), offset), offset)
        if not count:
            break  # it became shorter
        offset += count
