"""Events as BuildKit's clients read them."""

from __future__ import annotations

import threading

from builder.control.messages.control import StatusResponse
from builder.control.vertices import Told
from runtime.cancel import Cancel
from runtime.events import Changed, Event, Finished, Outcome, Output, Progress, Started, Warned
from runtime.spans import Source, Span


def told(*events: Event, ref: str = "ref") -> StatusResponse:
    """All that is told of these events, as one message."""
    stream = Told(ref, "build")
    for event in events:
        stream.emit(event)
    stream.end()
    found = StatusResponse()
    for each in stream.follow(Cancel()):
        found.vertexes += each.vertexes
        found.statuses += each.statuses
        found.logs += each.logs
        found.warnings += each.warnings
    return found


def test_a_step_begins_says_something_and_ends() -> None:
    found = told(
        Started(node="build/1", name="[1/2] RUN x", parent="build", time=10.5),
        Output(node="build/1", stream="stderr", data=b"text", time=11.0),
        Finished(node="build/1", outcome=Outcome.DONE, time=12.25),
    )
    first, last = found.vertexes
    assert first.name == last.name == "[1/2] RUN x" and first.digest == last.digest
    assert first.completed is None and last.completed is not None
    assert (last.started and last.started.nanos, last.completed.seconds) == (500_000_000, 12)
    assert not last.cached and last.error == ""
    (log,) = found.logs
    assert (log.vertex, log.stream, log.data) == (first.digest, 2, b"text")


def test_cached_failed_and_cancelled_steps_are_told_apart() -> None:
    def last(outcome: Outcome, error: str = "") -> tuple[bool, str]:
        vertex = told(Started(node="n", name="n"), Finished(node="n", outcome=outcome, error=error)).vertexes[
            -1
        ]
        return vertex.cached, vertex.error

    assert last(Outcome.CACHED) == (True, "")
    assert last(Outcome.FAILED, "exit code 1") == (False, "exit code 1")
    assert last(Outcome.CANCELLED, "whatever") == (False, "context canceled")  # clients look for the words


def test_two_builds_have_vertices_of_their_own() -> None:
    event = Started(node="build/1", name="x")
    assert told(event, ref="a").vertexes[0].digest != told(event, ref="b").vertexes[0].digest


def test_a_warning_about_the_build_is_one_about_its_dockerfile() -> None:
    span = Span(Source("Dockerfile", "from x\nRUN y\n"), 2)
    found = told(
        Started(node="build/dockerfile", name="[internal] load build definition"),
        Warned(node="build", message="wrong", span=span, rule="Rule", url="http://u", detail="more"),
    )
    (warning,) = found.warnings
    assert warning.vertex == found.vertexes[0].digest
    assert (warning.short, warning.detail, warning.url) == (b"Rule: wrong (line 2)", [b"more"], "http://u")
    assert warning.info is not None and warning.info.data == b"from x\nRUN y\n"
    assert [(each.start and each.start.line, each.end and each.end.line) for each in warning.ranges] == [
        (2, 2)
    ]


def test_a_progress_is_told_now_and_then_and_to_its_end() -> None:
    steps = [
        Progress(node="n", item="files", current=size, time=1.0 + size / 1000) for size in range(1, 1001)
    ]
    found = told(Started(node="n", name="n"), *steps, Finished(node="n", outcome=Outcome.DONE, time=3.0))
    assert len(found.statuses) <= 13
    assert found.statuses[-1].current == 1000 and found.statuses[-1].completed is not None
    assert {each.id for each in found.statuses} == {"files"}


def test_numbers_that_are_no_bytes_are_left_out() -> None:
    (status,) = told(Progress(node="n", item="naming", current=1, total=1, unit="")).statuses
    assert (status.current, status.total) == (0, 0) and status.completed is not None


def test_changes_of_the_store_and_the_build_itself_are_no_vertices() -> None:
    found = told(Started(node="build", name="b"), Changed(kind="image", id="x", action="tag"))
    assert found == StatusResponse()


def test_output_nobody_takes_is_dropped_before_it_fills_the_memory() -> None:
    piece = Output(node="n", stream="stdout", data=b"x" * (8 << 20))
    assert sum(len(log.data) for log in told(*[piece] * 20).logs) <= 64 << 20


def test_who_follows_hears_what_comes_later_and_stops_when_nobody_listens() -> None:
    stream, cancel = Told("ref", "build"), Cancel()
    heard: list[str] = []
    first = threading.Event()

    def follow() -> None:
        for each in stream.follow(cancel):
            heard.extend(vertex.name for vertex in each.vertexes)
            first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    stream.emit(Started(node="a", name="a"))
    assert first.wait(20)
    cancel.cancel()
    thread.join(20)
    assert not thread.is_alive() and heard == ["a"]
