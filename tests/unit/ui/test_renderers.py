"""Renderers: a list of events and the text a person sees."""

from __future__ import annotations

import base64
import io
import json

import pytest
from rich.console import Console

from pipeline.ui.jsonl import JsonLinesRenderer
from pipeline.ui.plain import PlainRenderer
from pipeline.ui.stream import Renderer, Stream, choose_renderer
from pipeline.ui.text import plain_text
from pipeline.ui.tty import TtyRenderer
from runtime.events import Changed, Event, Finished, Outcome, Output, Progress, Started, Warned
from runtime.spans import Source, Span

SPAN = Span(Source("Dockerfile", "FROM a\nRUN b\n"), 2)
BUILD: list[Event] = [
    Started(node="a", name="[app 1/2] RUN make", time=10.0),
    Output(node="a", stream="stdout", data=b"one\ntw", time=10.5),
    Started(node="b", name="[web 1/1] COPY . .", time=11.0),
    Output(node="a", stream="stdout", data=b"o\n\x1b[31mred\x1b[0m\n", time=11.25),
    Warned(node="b", message="unused", span=SPAN, time=11.5),
    Finished(node="b", outcome=Outcome.CACHED, time=12.0),
    Output(node="a", stream="stderr", data=b"no newline", time=12.0),
    Changed(kind="image", id="x", action="tag", time=12.0),
    Finished(node="a", outcome=Outcome.FAILED, error="exit 2", time=13.0),
]


def rendered(events: list[Event]) -> str:
    out = io.StringIO()
    renderer = PlainRenderer(out)
    for event in events:
        renderer.update(event)
    renderer.close()
    return out.getvalue()


def test_plain_numbers_nodes_and_keeps_lines_whole() -> None:
    assert rendered(BUILD) == (
        "#1 [app 1/2] RUN make\n"
        "#1 0.500 one\n"
        "#2 [web 1/1] COPY . .\n"
        "#1 1.250 two\n"
        "#1 1.250 red\n"
        "#2 WARN: unused (Dockerfile:2:1)\n"
        "#2 CACHED\n"
        "#1 3.000 no newline\n"
        "#1 FAILED: exit 2\n"
    )


def test_raw_json_is_the_status_objects_of_buildkit() -> None:
    out = io.StringIO()
    renderer = choose_renderer("rawjson", out)
    for event in [*BUILD, Progress(node="b", item="layer", current=3, total=9, time=14.5)]:
        renderer.update(event)
    renderer.close()
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    first = told[0]["vertexes"][0]
    assert first == {
        "digest": first["digest"],
        "name": "[app 1/2] RUN make",
        "started": "1970-01-01T00:00:10.000000000Z",
    }
    assert first["digest"].startswith("sha256:")
    log = told[1]["logs"][0]
    assert (log["vertex"], log["stream"], base64.b64decode(log["data"])) == (first["digest"], 1, b"one\ntw")
    vertexes = [each for line in told for each in line.get("vertexes", ())]
    assert [(each.get("cached"), each.get("error")) for each in vertexes if "completed" in each] == [
        (True, None), (None, "exit 2"),
    ]  # fmt: skip
    (warning,) = [each for line in told for each in line.get("warnings", ())]
    assert base64.b64decode(warning["short"]) == b"unused"
    assert told[-1]["statuses"][0]["current"] == 3
    assert told[-1]["statuses"][0]["timestamp"] == "1970-01-01T00:00:14.500000000Z"


def test_plain_tells_the_begin_and_the_end_of_a_transfer_once() -> None:
    steps = [
        Progress(node="p", item="layer", current=n, total=3_000_000, time=1.0)
        for n in (0, 1_000_000, 3_000_000)
    ]
    assert rendered([Started(node="p", name="pull", time=1.0), *steps, steps[-1]]) == (
        "#1 pull\n#1 layer 3 MB …\n#1 layer 3 MB done\n"
    )


def test_json_lines_hold_every_field_and_survive_binary_output() -> None:
    out = io.StringIO()
    JsonLinesRenderer(out).update(Output(node="a", stream="stdout", data=b"\xff\n", time=1.0))
    record = json.loads(out.getvalue())
    assert record == {"event": "output", "node": "a", "stream": "stdout", "data": "\udcff\n", "time": 1.0}


def test_tty_prints_finished_nodes_with_the_tail_of_the_failed_one() -> None:
    out = io.StringIO()
    renderer = TtyRenderer(out, Console(file=out, width=80, force_terminal=True, no_color=True))
    for event in BUILD:
        renderer.update(event)
    renderer.close()
    text = "\n".join(plain_text(line.encode()) for line in out.getvalue().split("\n"))
    assert "✓ [web 1/1] COPY . .  CACHED" in text
    assert "✗ [app 1/2] RUN make  FAILED  exit 2" in text
    assert "  │ red" in text


class Failing:
    def update(self, event: Event) -> None:
        raise RuntimeError("broken renderer")

    def tick(self, now: float) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_failing_renderer_stops_nobody_and_is_told_at_the_end() -> None:
    stream = Stream(Failing())
    for event in BUILD:
        stream.emit(event)
    with pytest.raises(RuntimeError, match="broken renderer"):
        stream.close()


def test_a_stream_shows_everything_emitted_before_it_is_closed() -> None:
    out = io.StringIO()
    stream = Stream(PlainRenderer(out))
    for event in BUILD:
        stream.emit(event)
    stream.close()
    assert out.getvalue() == rendered(BUILD)


@pytest.mark.parametrize(
    "kind, name", [("auto", "PlainRenderer"), ("jsonl", "JsonLinesRenderer"), ("quiet", "QuietRenderer")]
)
def test_auto_is_plain_where_there_is_no_terminal(kind: str, name: str) -> None:
    renderer: Renderer = choose_renderer(kind, io.StringIO())
    assert type(renderer).__name__ == name


def test_plain_breaks_a_line_that_does_not_end() -> None:
    pieces = [Output(node="a", stream="stdout", data=b"x" * 40_000, time=1.0) for _ in range(50)]
    lines = rendered([Started(node="a", name="a", time=1.0), *pieces]).splitlines()
    assert all(len(line) < 120_000 for line in lines)
    assert sum(line.count("x") for line in lines) > 1_900_000
