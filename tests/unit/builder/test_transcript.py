"""The classic builder's text: events in any order, and what a client reads."""

from __future__ import annotations

from typing import Any

import pytest

from builder.classic.transcript import Transcript
from builder.dockerfile import parse_dockerfile
from builder.graph import Exec
from builder.lower import LowerOptions, lower
from builder.solver import reachable
from runtime.errors import InvalidInput, NotFound, StepFailed
from runtime.events import Finished, Outcome, Output, Progress, Warned

TEXT = b"""FROM scratch AS one
ENV A=1
RUN ["one", "first"]
FROM scratch AS unused
RUN ["unused"]
FROM scratch AS two
RUN ["two"]
FROM scratch
COPY --from=one /a /a
COPY --from=two /b /b
CMD ["x"]
"""


class Told:
    """A transcript of TEXT; `node` names the vertex that runs a program."""

    def __init__(self, quiet: bool = False) -> None:
        self.records: list[dict[str, Any]] = []
        self.transcript = Transcript(self.records.append, "b", quiet=quiet, labels={"l": "v"})
        dockerfile = parse_dockerfile(TEXT, "Dockerfile")
        self.graph = lower(dockerfile, LowerOptions(), {})
        self.transcript.begin(dockerfile, [self.graph])

    def node(self, program: str) -> str:
        for number, vertex in enumerate(reachable([self.graph.root]), 1):
            name = vertex.operation.argv[0] if isinstance(vertex.operation, Exec) else vertex.label
            if name.endswith(program):
                return f"b/{number}"
        raise AssertionError(program)

    def say(self, program: str, data: bytes, stream: str = "stdout") -> None:
        self.transcript.emit(Output(node=self.node(program), stream=stream, data=data))

    def end(self, program: str, outcome: Outcome = Outcome.DONE) -> None:
        self.transcript.emit(Finished(node=self.node(program), outcome=outcome))

    @property
    def text(self) -> str:
        return "".join(record.get("stream", "") for record in self.records)


def test_steps_are_told_in_the_files_order_however_they_end() -> None:
    told = Told()
    assert (
        told.text
        == 'Step 1/10 : FROM scratch AS one\nStep 2/10 : ENV A=1\nStep 3/10 : RUN ["one", "first"]\n'
    )
    told.say("two", b"from two\n")
    told.end("two")
    assert "two" not in told.text
    told.say("one", b"from one\n")
    assert told.text.endswith("from one\n"), "the step at hand is told as it goes"
    told.end("one")
    assert told.text.endswith(
        "from one\n"
        'Step 4/10 : FROM scratch AS two\nStep 5/10 : RUN ["two"]\nfrom two\n'
        "Step 6/10 : FROM scratch\nStep 7/10 : COPY --from=one /a /a\n"
    )
    told.end("/a", Outcome.CACHED)
    told.end("/b")
    assert told.text.endswith(
        "Step 7/10 : COPY --from=one /a /a\n ---> Using cache\nStep 8/10 : COPY --from=two /b /b\n"
        'Step 9/10 : CMD ["x"]\nStep 10/10 : LABEL l=v\n'
    )


def test_standard_error_is_red_and_characters_stay_whole() -> None:
    told = Told()
    euro = "€".encode()
    told.say("one", b"a" + euro[:2])
    told.say("one", euro[2:] + b"\n")
    told.say("one", b"bad\n", "stderr")
    told.say("one", euro[:1])
    told.end("one")
    said = [record["stream"] for record in told.records]
    assert said[6:10] == ["a", "€\n", "\x1b[91mbad\n\x1b[0m", "\N{REPLACEMENT CHARACTER}"]


def test_a_failure_is_told_although_others_before_it_wait() -> None:
    told = Told()
    told.say("two", b"out\n")
    told.end("two", Outcome.FAILED)
    error = StepFailed("`two` failed", exit_code=3)
    told.transcript.fail(error)
    assert told.text.endswith('RUN ["two"]\nout\n')
    assert error.message == "The command 'two' returned a non-zero code: 3"


def test_a_quiet_build_tells_what_it_held_back_when_it_fails() -> None:
    told = Told(quiet=True)
    told.say("one", b"out\n")
    assert told.records == []
    told.end("one", Outcome.FAILED)
    told.transcript.fail(StepFailed("`one` failed", exit_code=1))
    assert told.text.startswith("Step 1/10") and told.text.endswith("out\n")


@pytest.mark.parametrize(("error", "said"), [(NotFound, "FROM nope\n"), (InvalidInput, "")])
def test_a_base_that_cannot_be_had_began_a_build_and_a_mistake_did_not(error: type[Any], said: str) -> None:
    records: list[dict[str, Any]] = []
    transcript = Transcript(records.append, "b", quiet=False, labels={})
    span = parse_dockerfile(b"FROM nope\n", "Dockerfile").stages[0].span
    transcript.fail(error("it is not there", span))
    assert "".join(record["stream"] for record in records) == said


def test_progress_is_told_and_warnings_are_kept_for_the_end() -> None:
    told = Told()
    told.transcript.emit(Progress(node="pull/x", item="abc", current=500_000, total=1_000_000))
    assert told.records[-1] == {
        "status": "Downloading", "id": "abc", "progressDetail": {"current": 500000, "total": 1000000},
        "progress": f"[{'=' * 25}>{' ' * 24}]  500kB/1MB",
    }  # fmt: skip
    before = len(told.records)
    told.transcript.emit(Warned(node="b", message="build argument X was not consumed"))
    assert len(told.records) == before
