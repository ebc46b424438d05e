"""Answers that are told while the work goes on, without a connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pytest

from runtime.cancel import Cancel
from runtime.daemon.streams import Line, Tell, stream, stream_bytes
from runtime.errors import Cancelled, Conflict, StepFailed
from runtime.http.messages import BodyReader, Disconnected, Headers, Request, Response

REQUEST = Request("POST", "/x", Headers([]), cast(BodyReader, None), "/x")


def records(response: Response) -> list[Any]:
    text = b"".join(cast(Iterator[bytes], response.body)).decode()
    response.close()
    return [json.loads(line) for line in text.splitlines()]


def test_an_error_before_the_first_record_is_an_answer() -> None:
    def work(tell: Tell, cancel: Cancel) -> None:
        raise Conflict("taken")

    with pytest.raises(Conflict, match="taken"):
        stream(REQUEST, work, Cancel())


def test_an_error_behind_the_first_record_is_the_last_one() -> None:
    def work(tell: Tell, cancel: Cancel) -> None:
        tell({"stream": "begun"})
        raise StepFailed("it failed", hint="look", exit_code=7)

    detail = {"code": 7, "message": "it failed (look)"}
    assert records(stream(REQUEST, work, Cancel())) == [
        {"stream": "begun"}, {"errorDetail": detail, "error": "it failed (look)"},
    ]  # fmt: skip


def test_a_bug_is_not_shown_to_clients() -> None:
    def work(tell: Tell, cancel: Cancel) -> None:
        tell({"stream": "begun"})
        raise KeyError("secret")

    assert "secret" not in str(records(stream(REQUEST, work, Cancel())))


def test_closing_the_answer_ends_the_work() -> None:
    ended = threading.Event()

    def work(tell: Tell, cancel: Cancel) -> None:
        tell({"stream": "begun"})
        while not cancel.wait(1.0):
            pass
        ended.set()
        cancel.check()

    response = stream(REQUEST, work, Cancel())
    response.close()
    assert ended.is_set()


def test_an_archive_that_is_cut_short_does_not_look_complete() -> None:
    def work(out: BinaryIO, cancel: Cancel) -> None:
        out.write(b"half")
        raise Conflict("gone")

    response = stream_bytes(REQUEST, work, Cancel(), {})
    with pytest.raises(Disconnected):
        list(cast(Iterator[bytes], response.body))
    response.close()


def test_an_archive_is_made_as_fast_as_it_is_fetched() -> None:
    written: list[int] = []

    def work(out: BinaryIO, cancel: Cancel) -> None:
        for number in range(50):
            out.write(bytes(1 << 20))
            written.append(number)

    response = stream_bytes(REQUEST, work, Cancel(), {})
    body = iter(cast(Iterator[bytes], response.body))
    assert len(written) < 10
    assert sum(len(chunk) for chunk in body) == 50 << 20
    response.close()


def test_progress_is_left_out_where_nobody_keeps_up() -> None:
    line = Line()
    line.write(bytes(17 << 20))
    line.tell({"progressDetail": {"current": 1}})
    line.tell({"stream": "kept"})
    assert line.next().endswith(b'\0{"stream":"kept"}\r\n')


def test_who_waits_to_write_is_woken_when_nobody_reads_any_more() -> None:
    line = Line()
    line.write(bytes(5 << 20))
    line.leave()
    with pytest.raises(Cancelled):
        line.write_slowly(b"x")
