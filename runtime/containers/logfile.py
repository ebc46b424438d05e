"""A container's log: one JSON object a line, `{"log", "stream", "time"}`, as Docker's json-file driver writes it.

`LogWriter` is used by the shim and imports next to nothing; `read_log` is for everybody else and works while the
container runs and after. Bytes that are not UTF-8 are kept as lone surrogates (`\\udcXX`), so our reader gives back
exactly what was written and foreign readers see a replacement character. The rule: only the writer rotates.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

# A line longer than this is written in parts; a part has no newline at its end and readers join it (Docker does so).
PART = 16 << 10
# Readers join parts up to this; what has no newline for longer is given out in pieces of about this size.
LONGEST_LINE = 1 << 20


class LogWriter:
    """Appends to `path`; keeps `max_files` files of `max_size` bytes (0: one file without limit)."""

    def __init__(self, path: str, max_size: int = 0, max_files: int = 1) -> None:
        self.path, self.max_size, self.max_files = path, max_size, max(1, max_files)
        self._partial = {"stdout": b"", "stderr": b""}
        self._fd = self._open(0)

    def _open(self, flags: int) -> int:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o640)
        self._size = os.fstat(fd).st_size
        return fd

    def write(self, stream: str, data: bytes) -> None:
        """Take what a process wrote; whole lines reach the file at once."""
        lines = (self._partial[stream] + data).split(b"\n")
        rest = lines.pop()
        tail = f'","stream":"{stream}","time":"{_now()}"}}\n'
        records = []
        for line in lines:
            records += self._parts(line, last="\\n", tail=tail)
        while len(rest) >= PART:
            records.append(_record(rest[:PART], "", tail))
            rest = rest[PART:]
        self._partial[stream] = rest
        if records:
            self._append(records)

    def _parts(self, line: bytes, last: str, tail: str) -> list[str]:
        parts = []
        while len(line) > PART:
            parts.append(_record(line[:PART], "", tail))
            line = line[PART:]
        parts.append(_record(line, last, tail))
        return parts

    def _append(self, records: list[str]) -> None:
        if not self.max_size:
            self._out("".join(records).encode())
            return
        batch: list[str] = []
        for record in records:
            batch.append(record)
            self._size += len(record)  # ASCII: characters are bytes
            if self._size >= self.max_size:
                self._out("".join(batch).encode())
                self._rotate()
                batch = []
        self._out("".join(batch).encode())

    def _out(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _rotate(self) -> None:
        os.close(self._fd)
        for number in range(self.max_files - 1, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            if os.path.exists(older):
                os.rename(older, f"{self.path}.{number}")
        self._fd = self._open(os.O_TRUNC)

    def close(self) -> None:
        """Write what is left of unfinished lines."""
        for stream, rest in self._partial.items():
            if rest:
                self._append([_record(rest, "", f'","stream":"{stream}","time":"{_now()}"}}\n')])
            self._partial[stream] = b""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _record(line: bytes, end: str, tail: str) -> str:
    quoted = encode_basestring_ascii(line.decode("utf-8", "surrogateescape"))
    return f'{{"log":{quoted[:-1]}{end}{tail}'


def _now() -> str:
    now = time.time_ns()
    return (
        f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 1_000_000_000))}.{now % 1_000_000_000:09}Z"
    )


class LogLine:
    """What was written up to and with a newline, or to the end of the output."""

    __slots__ = ("data", "stream", "time")

    def __init__(self, stream: str, time: str, data: bytes) -> None:
        self.stream, self.time, self.data = stream, time, data

    @property
    def seconds(self) -> float:
        """When, in seconds since the epoch."""
        return parse_time(self.time)

    def __repr__(self) -> str:
        return f"LogLine({self.stream!r}, {self.time!r}, {self.data!r})"


def parse_time(text: str) -> float:
    """Seconds since the epoch of the time in a log line."""
    import calendar

    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


class LogReader:
    """Reads a log from its oldest file on; `lines()` again later gives what was added since, across rotations."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._queue = _open_all(path)
        self._partial: dict[str, LogLine] = {}

    def lines(self, *, last: bool = False) -> Iterator[LogLine]:
        """Whole lines up to the end of what is there; with `last` also an unfinished one."""
        while self._queue:
            yield from self._whole_lines()
            if not self._next_file():
                break
        if last:
            yield from sorted(self._partial.values(), key=lambda line: line.time)
            self._partial.clear()

    def _whole_lines(self) -> Iterator[LogLine]:
        file = self._queue[0]
        while raw := file.readline():
            if not raw.endswith(b"\n"):  # the writer is in the middle of it
                file.seek(-len(raw), os.SEEK_CUR)
                return
            line = _parse(raw)
            if line is None:
                continue
            begun = self._partial.pop(line.stream, None)
            if begun is not None:
                line.data, line.time = begun.data + line.data, begun.time
            if line.data.endswith(b"\n") or len(line.data) > LONGEST_LINE:
                yield line
            else:
                self._partial[line.stream] = line

    def _next_file(self) -> bool:
        """Go on with the next file; False when ours is the one that is written to."""
        if len(self._queue) == 1:
            self._queue += self._newer()
            if len(self._queue) == 1:
                return False
        self._queue.pop(0).close()
        return True

    def _newer(self) -> list[BinaryIO]:
        """The files after the one we are in, opened; all of them when ours is gone."""
        ours = os.fstat(self._queue[0].fileno())
        try:
            if os.path.samestat(os.stat(self._path), ours):
                return []
        except FileNotFoundError:
            return []
        files = _open_all(self._path)
        index = next(
            (n for n, file in enumerate(files) if os.path.samestat(os.fstat(file.fileno()), ours)), -1
        )
        for file in files[: index + 1]:
            file.close()
        return files[index + 1 :]

    def close(self) -> None:
        for file in self._queue:
            file.close()
        self._queue = []

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_all(path: str) -> list[BinaryIO]:
    """All files of a log as they were at one moment: a rotation in between makes us look again."""
    while True:
        files: list[BinaryIO] = []
        try:
            for name in log_files(path):
                files.append(open(name, "rb"))  # noqa: SIM115  closed by the reader
            same = [
                os.path.samestat(os.stat(name), os.fstat(f.fileno()))
                for name, f in zip(log_files(path), files)
            ]
            if len(same) == len(log_files(path)) == len(files) and all(same):
                return files
        except FileNotFoundError:
            pass
        for file in files:
            file.close()


def _parse(raw: bytes) -> LogLine | None:
    """A line that a crash cut short is no line."""
    try:
        record = json.loads(raw)
        data = record["log"].encode("utf-8", "surrogateescape")
        return LogLine(record["stream"], record["time"], data)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def log_files(path: str) -> list[str]:
    """The files of a log, oldest first."""
    number, names = 1, []
    while os.path.exists(f"{path}.{number}"):
        names.append(f"{path}.{number}")
        number += 1
    return [*reversed(names), *([path] if os.path.exists(path) else [])]


def remove_log(path: str) -> None:
    """Delete a log with all its rotated files."""
    for name in log_files(path):
        os.unlink(name)
