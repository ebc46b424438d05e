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
from typing import Any, cast

from runtime.cancel import Cancel
from runtime.daemon.errors import text_of
from runtime.errors import PipeError, StepFailed
from runtime.http.messages import Request, Response

log = logging.getLogger("pipe.daemon")
Tell = Callable[[dict[str, Any]], None]
Work = Callable[[Tell, Cancel], None]
_BACKLOG = (
    16 << 20
)  # bytes of records nobody fetched yet; then progress, which the next one replaces, is left out


class Line:
    """Bytes on their way from the work to the connection."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._ended = False
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
            self._ready.notify()

    def end(self, error: BaseException | None = None) -> None:
        with self._ready:
            self.error, self._ended = error, True
            self._ready.notify()

    def next(self) -> bytes:
        """What there is, at least something; nothing at the end."""
        with self._ready:
            self._ready.wait_for(lambda: bool(self._parts) or self._ended)
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            return data


class _Body:
    """What is left of the work's records. Closing it ends the work and waits for that."""

    def __init__(self, first: bytes, line: Line, stack: ExitStack) -> None:
        self._next, self._line, self._stack = first, line, stack

    def __iter__(self) -> Iterator[bytes]:
        while self._next:
            yield self._next
            self._next = self._line.next()

    def close(self) -> None:
        self._stack.close()


def stream(request: Request, work: Work, outer: Cancel, headers: dict[str, str] | None = None) -> Response:
    """Answer with what `work` tells; `outer` cancels it as the client's going away does."""
    line, cancel, stack = Line(), Cancel(), ExitStack()

    def run() -> None:
        try:
            work(line.tell, cancel)
        except PipeError as error:
            _fail(line, error)
        except BaseException as error:
            log.exception("%s %s", request.method, request.target)
            _fail(line, error)
        else:
            line.end()

    thread = threading.Thread(target=run, name="work", daemon=True)
    stack.callback(thread.join)
    stack.callback(cancel.cancel, "the client went away")
    stack.enter_context(request.when_gone(lambda: cancel.cancel("the client went away")))
    stack.enter_context(outer.on_cancel(lambda: cancel.cancel(outer.reason)))
    thread.start()
    first = line.next()
    if line.error is not None and not line.told:
        stack.close()
        raise line.error
    body = cast("Iterator[bytes]", _Body(first, line, stack))
    return Response(200, {"Content-Type": "application/json", **(headers or {})}, body)


def _fail(line: Line, error: BaseException) -> None:
    """The error as the last record, or as the whole answer when there was none."""
    if line.told:
        line.tell(error_record(error))
    line.end(error)


def error_record(error: BaseException) -> dict[str, Any]:
    text = text_of(error) if isinstance(error, PipeError) else "internal error, see the daemon's log"
    detail: dict[str, Any] = {"message": text}
    if isinstance(error, StepFailed):
        detail = {"code": error.exit_code, **detail}
    return {"errorDetail": detail, "error": text}
