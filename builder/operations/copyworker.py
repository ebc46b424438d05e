"""A second process that makes copies and links while ours reads and hashes the same files: a large COPY uses two processors.

The helper is forked by the spawner and reads the files itself, from the page cache. Both must see the same bytes, so only
files that have been quiet for a while are handed over, and the helper checks that size, mtime and ctime are still those
of the listing. It ends with the pipe it reads from, so also when its owner is killed.
"""

from __future__ import annotations

import errno
import marshal
import os
import struct
import time
from typing import TYPE_CHECKING, Any

from builder.operations.linking import link_all, link_or_copy

if TYPE_CHECKING:
    from runtime.sandbox.spawner import Spawner

ENTRY = "builder.operations.copyworker:work"
LARGEST = (1 << 20) - 1  # one read
_QUIET_NS = 2_000_000_000
_BATCH = 128
_LENGTH = struct.Struct("<I")
_CHANGED = -1

# (source, target, mode, uid, gid, mtime to set, size, mtime, ctime); a link is (source, target), links are (from directory, to
# directory, names)
Order = tuple[str, str, int, int, int, int, int, int, int] | tuple[str, str] | tuple[str, str, list[str]]


class ChangedWhileCopied(Exception):
    """The file's path is the argument."""


class CopyWorker:
    """Our side. `finish` or `abandon` it; until then the helper may be writing."""

    def __init__(self, spawner: Spawner) -> None:
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self._answer, answer = os.pipe2(os.O_CLOEXEC)
        try:
            spawner.shim(ENTRY, {}, [orders, answer])
        except BaseException:
            os.close(self._orders)
            os.close(self._answer)
            raise
        finally:
            os.close(orders)
            os.close(answer)
        self._batch: list[Order] = []
        self._files = 0  # of the batch
        self._newest_ns = time.time_ns() - _QUIET_NS

    def takes(self, status: os.stat_result) -> bool:
        """Whether a regular file can be left to the helper."""
        return (
            status.st_size <= LARGEST
            and status.st_nlink == 1
            and status.st_mtime_ns < self._newest_ns
            and status.st_ctime_ns < self._newest_ns
        )

    def copy(
        self, source: str, target: str, mode: int, uid: int, gid: int, mtime_ns: int, status: os.stat_result
    ) -> None:
        self._order(
            (source, target, mode, uid, gid, mtime_ns, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        )

    def link(self, source: str, target: str) -> None:
        """A hard link to a file of a snapshot."""
        self._order((source, target))

    def link_all(self, source: str, target: str, names: list[str]) -> None:
        """Links in the directory `target` to files of a snapshot's directory."""
        self._order((source, target, names), len(names))

    def _order(self, order: Order, files: int = 1) -> None:
        self._batch.append(order)
        self._files += files
        if self._files >= _BATCH:
            self._send()

    def _send(self) -> None:
        data = marshal.dumps(self._batch)
        self._batch, self._files = [], 0
        _write(self._orders, _LENGTH.pack(len(data)) + data)

    def finish(self) -> None:
        """Wait until everything is written; OSError or ChangedWhileCopied when something could not be."""
        try:
            if self._batch:
                self._send()
            if self._orders >= 0:
                _write(self._orders, _LENGTH.pack(0))
        except BrokenPipeError:
            pass  # the answer says why
        answer = self._end()
        if not answer:
            raise OSError(errno.EIO, "the copying process ended early")
        number, path = marshal.loads(answer)
        if number == _CHANGED:
            raise ChangedWhileCopied(path)
        if number:
            raise OSError(number, os.strerror(number), path)

    def abandon(self) -> None:
        """Stop it, and wait until it writes no more."""
        self._batch = []
        self._end()

    def _end(self) -> bytes:
        if self._orders < 0:
            return b""
        os.close(self._orders)
        self._orders = -1
        answer = b""
        while data := os.read(self._answer, 4096):
            answer += data
        os.close(self._answer)
        return answer


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


# --- the helper's side --------------------------------------------------------------------------------------------


def work(argument: dict[str, Any], fds: list[int]) -> None:
    """Carry out orders until told to end, or the pipe does; then say how it went."""
    orders, answer = fds
    os.umask(0)
    result = (0, "")
    with open(orders, "rb") as stream:
        while True:
            head = stream.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                return  # the owner gave up, or is dead
            (length,) = _LENGTH.unpack(head)
            if not length:
                break
            result = _carry_out(marshal.loads(stream.read(length)))
            if result[0]:
                break
    _write(answer, marshal.dumps(result))
    os.close(answer)


def _carry_out(batch: list[Order]) -> tuple[int, str]:
    for order in batch:
        try:
            if len(order) == 2:
                link_or_copy(*order)
            elif len(order) == 3:
                link_all(*order)
            elif not _copy(*order):
                return _CHANGED, order[0]
        except OSError as error:
            return error.errno or errno.EIO, order[1]
    return 0, ""


def _copy(
    path: str, target: str, mode: int, uid: int, gid: int, mtime_ns: int, size: int, modified_ns: int, changed_ns: int
) -> bool:  # fmt: skip
    """False when it is not the file that was listed any more."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        status = os.fstat(source)
        if (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (size, modified_ns, changed_ns):
            return False
        data = os.read(source, size + 1)
    finally:
        os.close(source)
    if len(data) != size:
        return False
    copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o777)
    try:
        _write(copy, data)
        if uid or gid:
            os.fchown(copy, uid, gid)
        if mode & ~0o777:
            os.fchmod(copy, mode)
        os.utime(copy, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(copy)
    return True
