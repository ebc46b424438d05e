"""Which files of the context are used, told by the graph of a real Dockerfile."""

from __future__ import annotations

import pytest

from builder.control.needs import context_paths
from builder.dockerfile import parse_dockerfile
from builder.lower import LowerOptions, lower


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("COPY a b /d/", {"a", "b"}),
        ("COPY . /", {""}),
        ("COPY ./ /", {""}),
        ("COPY /a/ ./b/../c /", {"a", "c"}),
        ("COPY ../../a /", {"a"}),
        ("COPY --parents ./a/./b/*.go /", {"a/b/*.go"}),
        ("ADD a.tar http://example.com/x /", {"a.tar"}),
        ("RUN --mount=type=bind,source=s,target=/t true", {"s"}),
        ("RUN --mount=type=bind,target=/t true", {""}),
        ("RUN --mount=type=cache,target=/t true", set()),
        ("COPY --from=first /x /", {"one"}),
        ("COPY <<E /f\ntext\nE", set()),
        ("ENV D=dir\nCOPY $D/x /", {"dir/x"}),
    ],
)
def test_the_paths_of_steps_that_are_needed(text: str, paths: set[str]) -> None:
    head = "FROM scratch AS first\nCOPY one /\nFROM scratch AS unused\nCOPY two /\nFROM scratch\n"
    graph = lower(parse_dockerfile(f"{head}{text}\n".encode(), "Dockerfile"), LowerOptions(), {})
    assert context_paths([graph]) == paths
