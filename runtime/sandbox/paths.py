"""Finding and making places inside a root that somebody else filled.

An image may hold links to anywhere. Every lookup starts at a descriptor of the root and cannot leave it
(openat2, RESOLVE_IN_ROOT), nor pass a magic link of /proc. What had to be made is remembered, so that a builder can
take the empty stubs out of its layer again.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_CONFINED = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS

_LINKS = 40  # as many as the kernel follows (path_resolution(7))


def _beyond(above: int, parent: str, name: str, links: int) -> str:
    """Where the dangling link `name` points. It is looked up in the root again, so it leads nowhere else."""
    if links <= 0:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), f"{parent}/{name}")
    target = os.readlink(name, dir_fd=above)
    return target if target.startswith("/") else f"{parent}/{target}"


class Root:
    """A directory as the root of lookups."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.device = os.fstat(descriptor).st_dev
        self.made: list[str] = []

    def find(self, path: str, flags: int = os.O_PATH) -> int:
        """A descriptor of what is at `path`; the caller closes."""
        return openat2(self.descriptor, path.lstrip("/") or ".", flags, resolve=_CONFINED)

    def directory(self, path: str, mode: int = 0o755, links: int = _LINKS) -> int:
        """Like `find`, but makes missing directories on the way, also where a dangling link points."""
        try:
            return self.find(path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for end in range(1, len(parts) + 1):
            self._make("/".join(parts[: end - 1]), parts[end - 1], mode, links)
        return self.find(path, os.O_PATH | os.O_DIRECTORY)

    def _make(self, parent: str, name: str, mode: int, links: int) -> None:
        try:
            os.close(self.find(f"{parent}/{name}"))
            return
        except FileNotFoundError:
            above = self.find(parent, os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(name, mode, dir_fd=above)
            self._remember(above, f"{parent}/{name}")
        except FileExistsError:
            beyond = _beyond(above, parent, name, links)
            os.close(self.directory(beyond, mode, links - 1))
        finally:
            os.close(above)

    def _remember(self, above: int, path: str) -> None:
        """Only what the root itself keeps: places inside other mounts go with those."""
        if os.fstat(above).st_dev == self.device:
            self.made.append("/" + path.strip("/"))

    def file(self, path: str, links: int = _LINKS) -> int:
        """Like `find`, but makes a missing file (and its directories), empty, to be mounted over."""
        try:
            return self.find(path)
        except FileNotFoundError:
            parent, _, name = path.rstrip("/").rpartition("/")
        above = self.directory(parent)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(name, flags, 0o644, dir_fd=above))
            self._remember(above, path)
        except FileExistsError:
            # Many an image has /etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf.
            return self.file(_beyond(above, parent, name, links), links - 1)
        finally:
            os.close(above)
        return self.find(path)

    def place(self, path: str, like: int) -> int:
        """A mount point for what is behind descriptor `like`: a directory for a directory, else a file."""
        if stat.S_ISDIR(os.stat(like).st_mode):
            return self.directory(path)
        found = self.file(path)
        if stat.S_ISDIR(os.stat(found).st_mode):
            os.close(found)
            raise NotADirectoryError(20, "cannot mount a file over a directory", path)
        return found

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """The content of a regular file, at most `limit` bytes; empty when there is none. Never blocks on a FIFO."""
        try:
            descriptor = self.find(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            parts = bytearray()
            while len(parts) < limit and (part := os.read(descriptor, limit - len(parts))):
                parts += part
            return bytes(parts)
        finally:
            os.close(descriptor)
