"""Read a container's log: the last lines, a span of time, or what comes until it ends.

Following asks the shim to be told of new lines, and subscribes before it reads, so nothing falls in between. A log can
be read after the end as well as before.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from runtime.cancel import Cancel
from runtime.containers.client import Connection, ShimGone
from runtime.containers.container import Container
from runtime.containers.frames import MESSAGE
from runtime.containers.logfile import LogLine, LogReader
from runtime.errors import Unsupported


def read_logs(
    container: Container,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: float | None = None,
    until: float | None = None,
    streams: Sequence[str] = ("stdout", "stderr"),
    cancel: Cancel | None = None,
) -> Iterator[LogLine]:
    if container.spec.log_driver == "none":
        raise Unsupported(f"container {container.name} keeps no log (log driver none)")
    lines = _lines(container, follow, tail, cancel or Cancel())
    return _between((line for line in lines if line.stream in streams), since, until)


def _between(lines: Iterable[LogLine], since: float | None, until: float | None) -> Iterator[LogLine]:
    for line in lines:
        if until is not None and line.seconds > until:
            return
        if since is None or line.seconds >= since:
            yield line


def _lines(container: Container, follow: bool, tail: int | None, cancel: Cancel) -> Iterator[LogLine]:
    connection = _subscribed(container) if follow else None
    try:
        with LogReader(container.log_path) as reader:
            there = reader.lines(last=connection is None)
            yield from there if tail is None else deque(there, tail)
            if connection is not None:
                with cancel.on_cancel(connection.interrupt):
                    yield from _grow(reader, connection)
    finally:
        if connection is not None:
            connection.close()


def _subscribed(container: Container) -> Connection | None:
    """A connection that is told of new lines; None when nothing will be written any more."""
    connection = Connection.open(container.directory)
    if connection is not None:
        try:
            connection.ask("follow")
        except ShimGone:
            connection.close()
            return None
    return connection


def _grow(reader: LogReader, connection: Connection) -> Iterator[LogLine]:
    """What is written from now on, until the end."""
    while True:
        try:
            ended = _told(connection)
        except ShimGone:
            ended = True
        yield from reader.lines(last=ended)
        if ended:
            return


def _told(connection: Connection) -> bool:
    """Wait until the log grew; True at the end. Several words of growth at once are one."""
    while True:
        kind, body = connection.next()
        record = json.loads(body) if kind == MESSAGE else {}
        if record.get("event") == "exited" and record["final"]:
            return True
        if record.get("event") == "log" and not connection.has_frames():
            return False
