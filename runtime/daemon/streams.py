"""Answers that are told while the work goes on: JSON records one after another, the error last (FEATURES E-R8).

The work runs on a thread of its own and never waits for a slow client. What fails before the first record was told is
an answer with a status; later the status is long sent, so the error is a record. A client that goes away cancels the
work, and the connection's thread leaves when it has ended.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, cast

from runtime.cancel import Cancel
from runtime.daemon.errors import text_of
from runtime.errors import Cancelled, PipeError, StepFailed
from runtime.http.messages import Disconnected, Request, Response

log = logging.getLogger("pipe.daemon")
Tell = Callable[[dict[str, Any]], None]
Work = Callable[[Tell, Cancel], None]
_AHEAD = 4 << 20  # bytes of an archive made before they are fetched
_BACKLOG = (
    16 << 20
)  # bytes of records nobody fetched yet; then progress, which the next one replaces, is left out


class Line:
    """Bytes on their way from the work to the connection."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._ended = self._left = False
        self.told = False
        self.error: BaseException | None = None

    def tell(self, record: dict[str, Any]) -> None:
        """Add a record; never waits."""
        if "progressDetail" in record and self._size > _BACKLOG:
            return
        self.write(
            json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\r\n"
        )

    def write(self, data: bytes) -> None:
        with self._ready:
            self._parts.append(data)
            self._size += len(data)
            self.told = True
            self._ready.notify_all()

    def write_slowly(self, data: bytes) -> int:
        """Add bytes; waits while much of what was added before has not been fetched."""
        with self._ready:
            self._ready.wait_for(lambda: self._size < _AHEAD or self._left)
            if self._left:
                raise Cancelled("the client went away")
        self.write(data)
        return len(data)

    def leave(self) -> None:
        """Nobody fetches any more: whoever waits to add something need not."""
        with self._ready:
            self._left = True
            self._ready.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        with self._ready:
            self.error, self._ended = error, True
            self._ready.notify_all()

    def next(self) -> bytes:
        """What there is, at least something; nothing at the end."""
        with self._ready:
            self._ready.wait_for(lambda: bool(self._parts) or self._ended)
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._ready.notify_all()
            return data


class _Body:
    """What is left of the work's output. Closing it ends the work and waits for that."""

    def __init__(self, first: bytes, line: Line, stack: ExitStack, *, records: bool) -> None:
        self._first, self._line, self._stack, self._records = first, line, stack, records

    def __iter__(self) -> Iterator[bytes]:
        data = self._first or self._line.next()
        while data:
            yield data
            data = self._line.next()
        if self._line.error is not None and not self._records:
            # An archive that is cut short must not look complete.
            raise Disconnected

    def close(self) -> None:
        self._line.leave()
        self._stack.close()


def stream(request: Request, work: Work, outer: Cancel, *, at_once: bool = False) -> Response:
    """Answer with the records that `work` tells; `outer` cancels it as the client's going away does.

    With `at_once` the answer begins before there is a record: clients wait for its head.
    """
    line = Line()

    def run(cancel: Cancel) -> None:
        try:
            work(line.tell, cancel)
        except BaseException as error:
            if line.told or at_once:  # the status is sent
                line.tell(error_record(error))
            raise

    return _answer(
        request, line, run, outer, {"Content-Type": "application/json"}, records=True, at_once=at_once
    )


def stream_bytes(
    request: Request,
    work: Callable[[BinaryIO, Cancel], None],
    outer: Cancel,
    headers: dict[str, str],
    *,
    at_once: bool = False,
) -> Response:
    """Answer with the bytes that `work` writes, as fast as they are fetched."""
    line = Line()
    return _answer(
        request,
        line,
        lambda cancel: work(cast(BinaryIO, _Out(line)), cancel),
        outer,
        headers,
        records=False,
        at_once=at_once,
    )


class _Out:
    def __init__(self, line: Line) -> None:
        self._line = line

    def write(self, data: bytes) -> int:
        return self._line.write_slowly(bytes(data))

    def flush(self) -> None:
        pass


def _answer(
    request: Request,
    line: Line,
    run: Callable[[Cancel], None],
    outer: Cancel,
    headers: dict[str, str],
    *,
    records: bool,
    at_once: bool = False,
) -> Response:
    cancel, stack = Cancel(), ExitStack()

    def begin() -> None:
        try:
            run(cancel)
        except PipeError as error:
            line.end(error)
        except BaseException as error:
            log.exception("%s %s", request.method, request.target)
            line.end(error)
        else:
            line.end()

    thread = threading.Thread(target=begin, name="work", daemon=True)
    stack.callback(thread.join)
    stack.callback(cancel.cancel, "the client went away")
    stack.enter_context(request.when_gone(lambda: cancel.cancel("the client went away")))
    stack.enter_context(outer.on_cancel(lambda: cancel.cancel(outer.reason)))
    thread.start()
    first = b"" if at_once else line.next()
    if line.error is not None and not line.told:
        stack.close()
        raise line.error
    body = cast("Iterator[bytes]", _Body(first, line, stack, records=records))
    return Response(200, headers, body)


def error_record(error: BaseException) -> dict[str, Any]:
    """JSONMessage of an error; `code` is the exit code of a step that failed."""
    text = text_of(error) if isinstance(error, PipeError) else "internal error, see the daemon's log"
    detail: dict[str, Any] = {"message": text}
    if isinstance(error, StepFailed):
        detail = {"code": error.exit_code, **detail}
    return {"errorDetail": detail, "error": text}
