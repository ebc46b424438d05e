"""Talk to a container's shim over its control socket: orders, and the streams of what one is attached to."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Collection
from typing import Any

from runtime.containers.frames import HEADER, MESSAGE, STDERR, STDIN, STDOUT, Decoder, frame, message
from runtime.containers.spec import ExitStatus
from runtime.errors import Conflict, HostFault, InvalidInput, PipeError, Unsupported

SOCKET_NAME = "control.sock"
_CHUNK = 64 << 10
_CATEGORIES: dict[str, type[PipeError]] = {
    "input": InvalidInput,
    "unsupported": Unsupported,
    "conflict": Conflict,
}
OnOutput = Callable[[int, bytes], None]
Message = dict[str, Any]


class ShimGone(Exception):
    """The other side has closed the connection."""


class Connection:
    """One connection to a shim. Close it, or use it as a context manager."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._decoder = Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self.closed = False  # by the other side

    @classmethod
    def open(cls, directory: str) -> Connection | None:
        """Connect to the shim of the container in `directory`; None when there is none."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A descriptor stands for the directory: a socket's address holds 108 bytes, a path may be longer.
            place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                line.connect(f"/proc/self/fd/{place}/{SOCKET_NAME}")
            finally:
                os.close(place)
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            return None
        return cls(line)

    def attach(self, streams: Collection[str]) -> None:
        """Ask for output from now on, and that our stdin frames reach the process; its answer is not waited for."""
        stdin, stdout, stderr = ("stdin" in streams, "stdout" in streams, "stderr" in streams)
        self.send(op="attach", stdin=stdin, stdout=stdout, stderr=stderr)

    def send(self, fds: list[int] | None = None, **fields: Any) -> None:
        try:
            data = message(**fields)
            if fds:
                socket.send_fds(self._line, [data], fds)
            else:
                self._line.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ShimGone from error

    def ask(self, operation: str, **fields: Any) -> Message:
        """Send a request and wait for its answer; what comes before it is kept for later."""
        self.send(op=operation, **fields)
        answer = self.expect("re", (operation,))
        if "error" in answer:
            raise refusal(answer)
        return answer

    def expect(self, key: str, values: tuple[str, ...]) -> Message:
        """The next message whose `key` is one of `values`."""
        kept: list[tuple[int, bytes]] = []
        while True:
            kind, body = self.next()
            record = json.loads(body) if kind == MESSAGE else {}
            if record.get(key) in values:
                self._frames = kept + self._frames
                return dict(record)
            kept.append((kind, body))

    def next(self) -> tuple[int, bytes]:
        """The next frame."""
        while not self._frames:
            self._fill()
        return self._frames.pop(0)

    def _fill(self) -> None:
        try:
            data = self._line.recv(_CHUNK + HEADER)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            raise ShimGone
        self._frames += self._decoder.feed(data)

    def has_frames(self) -> bool:
        """Whether something was received that `next` would give at once."""
        return bool(self._frames)

    def fileno(self) -> int:
        return self._line.fileno()

    def end_input(self) -> None:
        """Half-close: nothing more comes from us."""
        self._line.shutdown(socket.SHUT_WR)

    def interrupt(self) -> None:
        """From another thread: whoever waits for something of the shim finds it gone."""
        try:
            self._line.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone

    def send_input(self, data: bytes) -> None:
        """Standard input of what we are attached to."""
        try:
            self._line.sendall(frame(STDIN, data))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ShimGone from error

    def wait_end(self, timeout: float | None = None) -> ExitStatus | None:
        """Until an `exited` event that is final; None after `timeout` seconds."""
        import time

        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._frames and not select.select([self._line], [], [], left)[0]:
                return None
            kind, body = self.next()
            record = json.loads(body) if kind == MESSAGE else {}
            if record.get("event") == "exited" and record["final"]:
                return exit_status(record)

    def close(self) -> None:
        self._line.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- streams ------------------------------------------------------------------------------------------------------

    def pump(
        self,
        output: OnOutput,
        stdin: int = -1,
        *,
        detach_keys: bytes = b"",
        wake: int = -1,
        on_wake: Callable[[bytes], None] = lambda data: None,
    ) -> ExitStatus | None:
        """Pass output on and input in until the end; None when the user detached or the shim is gone.

        Input is read only when what was read before has left: whoever writes to us feels whether the process reads.
        `on_wake` gets what can be read from the descriptor `wake`, between two frames.
        """
        return _Pump(self, output, stdin, DetachKeys(detach_keys), wake, on_wake).run()


class _Pump:
    def __init__(
        self,
        connection: Connection,
        output: OnOutput,
        stdin: int,
        keys: DetachKeys,
        wake: int,
        on_wake: Callable[[bytes], None],
    ) -> None:
        self._connection, self._output, self._stdin = connection, output, stdin
        self._keys, self._wake, self._on_wake = keys, wake, on_wake
        self._line = connection._line
        self._waiting = b""

    def run(self) -> ExitStatus | None:
        while True:
            while self._connection._frames:
                status = self._frame(*self._connection._frames.pop(0))
                if status is not None:
                    return status
            try:
                if not self._turn():
                    return None
            except ShimGone:
                return None

    def _frame(self, kind: int, body: bytes) -> ExitStatus | None:
        if kind in (STDOUT, STDERR):
            self._output(kind, body)
        elif kind == MESSAGE:
            record = json.loads(body)
            if record.get("event") == "exited" and record["final"]:
                return exit_status(record)
        return None

    def _turn(self) -> bool:
        """Wait for something to do and do it; False when the user detached."""
        poll = select.poll()
        poll.register(self._line, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        if self._stdin >= 0 and not self._waiting:
            poll.register(self._stdin, select.POLLIN)
        if self._wake >= 0:
            poll.register(self._wake, select.POLLIN)
        for fd, events in poll.poll():
            if fd == self._line.fileno():
                if events & select.POLLOUT:
                    self._flush()
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._connection._fill()
            elif fd == self._wake:
                self._on_wake(os.read(fd, 64))
            elif not self._read_stdin():
                return False
        return True

    def _read_stdin(self) -> bool:
        try:
            data = os.read(self._stdin, _CHUNK)
        except OSError:  # EIO: our terminal has gone
            data = b""
        if not data:
            self._stdin = -1
            self._waiting += frame(STDIN, b"")
        else:
            passed, detached = self._keys.feed(data)
            self._waiting += frame(STDIN, passed) if passed else b""
            if detached:
                self._line.sendall(self._waiting)
                return False
        self._flush()
        return True

    def _flush(self) -> None:
        try:
            while self._waiting:
                sent = self._line.send(self._waiting, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self._waiting = self._waiting[sent:]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._waiting, self._stdin = b"", -1  # what it said before it went is still to be read


class DetachKeys:
    """Looks for the detach sequence in what is typed; what only began like it is passed on after all."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the sequence was completed)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._seen]
            self._seen = 1 if byte == self._keys[0] else 0
            if not self._seen:
                passed.append(byte)
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `ctrl-@`, `a,b` as bytes."""
    keys = bytearray()
    for word in text.split(","):
        if len(word) == 1:
            keys += word.encode()
        elif (
            word.startswith("ctrl-")
            and len(word) == 6
            and word[5].lower() in "@abcdefghijklmnopqrstuvwxyz[\\]^_"
        ):
            keys.append(ord(word[5].upper()) - 64)
        else:
            raise InvalidInput(
                f"unknown key {word!r} in detach keys {text!r}", hint="write them like ctrl-p,ctrl-q"
            )
    return bytes(keys)


def exit_status(record: Message) -> ExitStatus:
    return ExitStatus(code=record["code"], oom_killed=record["oom_killed"], error=record["error"])


def refusal(answer: Message) -> PipeError:
    """What a shim did not do, in the shared categories."""
    operation = answer.get("operation")
    text = f"{operation}: {answer['error']}" if operation else str(answer["error"])
    return _CATEGORIES.get(str(answer.get("kind")), HostFault)(text, hint=str(answer.get("hint") or ""))
