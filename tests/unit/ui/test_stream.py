"""What is shown at once is what is shown as it happens."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from pipeline.ui import stream
from pipeline.ui.stream import Stream
from runtime.errors import HostFault
from runtime.events import Event, Finished, Outcome, Output, Started

EVENTS: tuple[Event, ...] = (
    Started(node="build", name="build .", time=1.0),
    Started(node="build/1", name="[1/1] RUN true", parent="build", time=1.0),
    Output(node="build/1", stream="stdout", data=b"hello\n", time=1.5),
    Finished(node="build/1", outcome=Outcome.DONE, time=2.0),
    Finished(node="build", outcome=Outcome.CACHED, detail="sha256:1  shop:1", time=2.5),
)


@pytest.mark.parametrize("kind", ["plain", "jsonl", "quiet"])
def test_past_events_are_shown_as_if_they_came_now_but_by_no_thread(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stream.open_stream(kind) as emit:
        for event in EVENTS:
            emit(event)
    expected = capsys.readouterr()
    monkeypatch.setattr(threading, "Thread", None)
    stream.show(EVENTS, kind)
    assert capsys.readouterr() == expected


def test_a_reader_that_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        closed = False

        def update(self, event: Event) -> None:
            raise BrokenPipeError

        def close(self) -> None:
            self.closed = True

    renderer = Gone()
    monkeypatch.setattr(stream, "choose_renderer", lambda *_, **__: renderer)
    stream.show(EVENTS, "plain")
    assert renderer.closed


class Full:
    """A renderer whose disk is full."""

    def update(self, event: Event) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def tick(self, now: float) -> None: ...

    def close(self) -> None: ...


def test_progress_that_cannot_be_written_is_no_error_but_a_result_is() -> None:
    progress = Stream(Full(), matters=False)
    progress.emit(Started(node="a", name="a"))
    progress.close()
    result = Stream(Full())
    result.emit(Started(node="a", name="a"))
    with pytest.raises(HostFault, match="cannot write the output: No space left"):
        result.close()
