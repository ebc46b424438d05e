"""A second process that reads the small files of a new layer, while ours walks the directories and hashes.

Most of a layer's hash is system calls, four for each small file, and one interpreter does one at a time. The helper is
forked by the spawner when a layer turns out to have many files, and ends with the line it reads from, so also when its owner
is killed. A file that is not as it was listed, or has attributes, is left to us; so is everything when the helper dies.
"""

from __future__ import annotations

import marshal
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from runtime.sandbox.spawner import Spawner

ENTRY = "builder.operations.reading:work"
_ENOUGH = 128  # files that take as long to read as a process to fork
_PIPE = 1 << 20
_MESSAGE = 1 << 18
_LENGTH = struct.Struct("<I")
# A pipe that took a file's place must not hold us up.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SecondReader:
    """Our side; a context manager. Answers come in the order of the questions."""

    def __init__(self, spawner: Spawner | None) -> None:
        self._spawner = spawner
        self._seen = 0
        self._stack = ExitStack()
        self._orders: socket.socket | None = None
        self._answers: BinaryIO | None = None

    def ask(self, directory: bytes, files: Sequence[tuple[bytes, int]]) -> bool:
        """Have files of one directory read: names and sizes. False when we have to do it ourselves.

        That is until it is known that the layer is large; when there is no helper any more; and when it is far behind:
        we must never wait for one who waits for us to take its answers.
        """
        self._seen += len(files)
        if self._orders is None and self._spawner is not None and self._seen > _ENOUGH:
            self._start(self._spawner)
        if self._orders is None:
            return False
        try:
            self._orders.send(marshal.dumps((directory, tuple(files))), socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _start(self, spawner: Spawner) -> None:
        self._spawner = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders = self._stack.enter_context(ours)
        answers, answer = os.pipe2(os.O_CLOEXEC)
        self._answers = self._stack.enter_context(os.fdopen(answers, "rb", _PIPE))
        try:
            _widen(answer)
            spawner.shim(ENTRY, {}, [theirs.fileno(), answer], wait=False)
        finally:
            theirs.close()
            os.close(answer)

    def answer(self) -> Sequence[bytes | None]:
        """What the oldest question brought: per file its bytes or None; nothing at all when there is no helper any more."""
        assert self._answers is not None
        head = self._answers.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return ()
        (length,) = _LENGTH.unpack(head)
        data = self._answers.read(length)
        found: Sequence[bytes | None] = marshal.loads(data) if len(data) == length else ()
        return found

    def __enter__(self) -> SecondReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _widen(pipe: int) -> None:
    """So that the helper need not wait for us after forty files; what a user may have is limited."""
    import fcntl

    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
    except OSError:
        pass


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


# --- the helper's side --------------------------------------------------------------------------------------------


def work(argument: dict[str, Any], fds: list[int]) -> None:
    """Answer until the line ends."""
    answers = fds[1]
    with socket.socket(fileno=fds[0]) as orders:
        while order := orders.recv(_MESSAGE):
            directory, files = marshal.loads(order)
            data = marshal.dumps(read_files(directory, files))
            try:
                _write(answers, _LENGTH.pack(len(data)) + data)
            except BrokenPipeError:
                return


def read_files(directory: bytes, files: Sequence[tuple[bytes, int]]) -> list[bytes | None]:
    """The bytes of each file; None for one that has attributes, another size, or cannot be read."""
    try:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return [None] * len(files)
    found: list[bytes | None] = []
    try:
        for name, size in files:
            data = _read(place, name, size)
            found.append(data if data is not None and len(data) == size else None)
    finally:
        os.close(place)
    return found


def _read(place: int, name: bytes, size: int) -> bytes | None:
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=place)
    except OSError:
        return None
    try:
        return None if os.listxattr(descriptor) else os.read(descriptor, size + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
