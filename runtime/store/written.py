"""Which files were open for writing while a program ran: overlayfs copies those up, though nothing was written to them.

Locks are such files, dpkg's for example. The kernel says when a file in a directory is closed by a writer (fanotify(7)); of that
the inode and the name are kept. Where that is not allowed, such files go unnoticed.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from sys import byteorder

from runtime.linux import fanotify
from runtime.linux.mounts import AT_FDCWD

_METADATA = 24  # bytes of struct fanotify_event_metadata: its length is in the first four, the descriptor in bytes 16 to 19
_READ = 4096
_FLAGS = (
    fanotify.FAN_CLASS_NOTIF
    | fanotify.FAN_CLOEXEC
    | fanotify.FAN_NONBLOCK
    | fanotify.FAN_UNLIMITED_QUEUE
    | fanotify.FAN_UNLIMITED_MARKS
)
_OPENING = os.O_RDONLY | os.O_LARGEFILE | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
_HEARD = fanotify.FAN_CLOSE_WRITE | fanotify.FAN_EVENT_ON_CHILD
_MARKING = fanotify.FAN_MARK_ADD | fanotify.FAN_MARK_DONT_FOLLOW

Written = dict[int, set[bytes]]


@contextmanager
def written_below(root: str, directories: Iterable[bytes]) -> Iterator[Written]:
    """The inodes of regular files that were open for writing during the block, each with its names; complete in the end.

    `directories` are those to hear of, by paths below `root`. Names are relative to `root` too, also when whoever wrote had
    that for his own root.
    """
    found: Written = {}
    try:
        group = fanotify.fanotify_init(_FLAGS, _OPENING)
    except OSError:
        yield found
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        top = os.fsencode(root)
        with suppress(OSError):
            for each in directories:
                fanotify.fanotify_mark(group, _MARKING, _HEARD, AT_FDCWD, top + b"/" + each)
        # At once and not in the end: an event that waits keeps a deleted file on the disk.
        thread = threading.Thread(target=_listen, args=(group, reading, top, found), name="written")
        thread.start()
        try:
            yield found
        finally:
            os.close(writing)
            thread.join()
    finally:
        os.close(reading)
        os.close(group)


def _listen(group: int, stop: int, top: bytes, found: Written) -> None:
    poll = select.poll()
    poll.register(group, select.POLLIN)
    poll.register(stop, select.POLLHUP)
    while True:
        stopping = any(descriptor == stop for descriptor, _ in poll.poll())
        while _take(group, top, found):
            pass
        if stopping:
            return


def _take(group: int, top: bytes, found: Written) -> bool:
    """Take some events off the queue; False when there are none."""
    try:
        data = os.read(group, _READ)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file that cannot be opened: its event is gone with that
    at = 0
    while at + _METADATA <= len(data):
        descriptor = int.from_bytes(data[at + 16 : at + 20], byteorder, signed=True)
        if descriptor >= 0:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                name = os.readlink(b"/proc/self/fd/%d" % descriptor).removeprefix(top).lstrip(b"/")
                found.setdefault(status.st_ino, set()).add(name)
            os.close(descriptor)
        at += int.from_bytes(data[at : at + 4], byteorder)
    return True
