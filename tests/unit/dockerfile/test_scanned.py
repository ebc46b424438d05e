"""What a bill of material looks at beside the result. The expectations are what docker 28.5 hands a generator of the same file."""

from __future__ import annotations

import pytest

from builder.dockerfile import parse_dockerfile
from builder.graph import Copy, CopySource
from builder.lower.scanned import Scanned, lower_scanned
from builder.request import BuildRequest
from registry_client.oci.platform import Platform
from runtime.errors import InvalidInput
from tests.support.dockerfile import options_with, resolved

STAGES = """ARG BUILDKIT_SBOM_SCAN_STAGE=g1,final
FROM base AS g1
COPY src /g1
FROM base AS unused
ARG BUILDKIT_SBOM_SCAN_STAGE=true
RUN touch /unused
FROM base AS one
ARG BUILDKIT_SBOM_SCAN_STAGE=true
RUN mkdir /one
FROM one AS child
RUN touch /child
FROM base
ARG BUILDKIT_SBOM_SCAN_STAGE
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
RUN touch /unnamed
FROM base AS off
ARG BUILDKIT_SBOM_SCAN_STAGE=false
RUN touch /off
FROM scratch AS final
COPY --from=g1 /g1 /g1
COPY --from=one /one /one
COPY --from=child /child /child
COPY --from=4 /unnamed /unnamed
COPY --from=off /off /off
"""
ASKS = STAGES.replace("AS final\n", "AS final\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n")


def scanned(text: str, target: str = "", **build_args: str) -> tuple[Scanned, ...]:
    dockerfile, options = parse_dockerfile(text), options_with(build_args=build_args, target=target)
    return lower_scanned(dockerfile, options, resolved(dockerfile, options))


@pytest.mark.parametrize(
    ("text", "given", "names"),
    [
        (STAGES, {}, "g1 one child"),
        (STAGES, {"STAGE": "true"}, "g1 one child stage-4 off"),
        (STAGES, {"STAGE": "false"}, ""),
        (STAGES, {"STAGE": "0"}, ""),
        (STAGES, {"STAGE": "one,stage-4", "CONTEXT": "true"}, "one stage-4"),
        (ASKS, {}, "g1 one child context"),
        (ASKS, {"CONTEXT": "false"}, "g1 one child"),
        (ASKS, {"CONTEXT": "g1,final"}, "g1 one child context"),
        (ASKS, {"CONTEXT": "g1"}, "g1 one child"),
    ],
)
def test_stages_and_the_context_are_looked_at_as_docker_does(
    text: str, given: dict[str, str], names: str
) -> None:
    found = scanned(text, **{f"BUILDKIT_SBOM_SCAN_{name}": value for name, value in given.items()})
    assert [each.name for each in found] == names.split()


def test_the_target_is_looked_at_anyway_and_what_it_does_not_need_never() -> None:
    assert [each.name for each in scanned(ASKS, target="one")] == []
    assert [each.name for each in scanned(ASKS, target="child")] == ["one"]


@pytest.mark.parametrize(
    ("steps", "paths"),
    [
        ("COPY src lib/*.c /a/\nADD b /b\nRUN --mount=type=bind,source=m,target=/m x", ("b", "lib/*.c", "m", "src")),
        ("COPY src /a\nCOPY . /b", (".",)),
        ("RUN --mount=type=bind,target=/m x", (".",)),
        ("RUN --mount=type=bind,from=base,target=/m x\nADD https://example.org/a /a\nCOPY <<E /c\nE", ()),
    ],
)  # fmt: skip
def test_of_the_context_only_what_steps_use_is_looked_at(steps: str, paths: tuple[str, ...]) -> None:
    text = f"FROM base AS one\n{steps}\nFROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY --from=one /a /\n"
    (found,) = scanned(text)
    operation = found.graph.root.operation
    if not paths:
        assert not isinstance(operation, Copy)
        return
    assert operation == Copy(sources=(CopySource(input=1, paths=paths),), dest="/", parents=paths != (".",))


def test_a_root_that_is_looked_at_is_no_image_of_the_users() -> None:
    found = scanned(ASKS, target="child")
    assert found[0].graph.config.config.labels == {"pipe.scanned": "one"}


@pytest.mark.parametrize(
    ("text", "number", "several"),
    [("", 1, False), ("", 2, True), ("1", 1, True), ("t", 1, True), ("0", 1, False), ("True", 2, True)],
)
def test_an_argument_makes_one_platform_several(text: str, number: int, several: bool) -> None:
    platforms = tuple(Platform("linux", each) for each in ("amd64", "arm64")[:number])
    request = BuildRequest(build_args={"BUILDKIT_MULTI_PLATFORM": text}, platforms=platforms)
    assert request.as_several is several


@pytest.mark.parametrize(("text", "number"), [("foo", 1), ("false", 2)])
def test_an_argument_that_says_nothing_or_cannot_be_is_refused(text: str, number: int) -> None:
    platforms = tuple(Platform("linux", each) for each in ("amd64", "arm64")[:number])
    with pytest.raises(InvalidInput, match="BUILDKIT_MULTI_PLATFORM"):
        _ = BuildRequest(build_args={"BUILDKIT_MULTI_PLATFORM": text}, platforms=platforms).as_several
