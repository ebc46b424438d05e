"""The build checks, judged by BuildKit's own lint cases (FEATURES A-102 … A-104)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.checks import RULES, Finding, check, check_source, outline_of, targets_of
from builder.checks.report import (
    check_json_report,
    check_text_report,
    outline_json_report,
    outline_text_report,
    targets_json_report,
    targets_text_report,
)
from builder.dockerfile import DockerfileError, parse_dockerfile
from builder.ignore import Patterns
from builder.lower import BaseWanted, ResolvedBase
from registry_client.oci.config import ContainerConfig, ImageConfig
from registry_client.oci.platform import Platform
from tests.support import REPOSITORY
from tests.support.dockerfile import AMD64, options_with

CASES = json.loads((REPOSITORY / "tests" / "data" / "dockerfile" / "lint-cases.json").read_text())

# The rules were lifted from the tests mechanically. Here the tests themselves say otherwise: rules of several runs of
# one file were put together, asserted in a loop, or belong to a run with a build argument.
CORRECTED = {
    10: ["UndefinedVar"] * 2,
    17: [],
    18: ["ConsistentInstructionCasing", "FromAsCasing"],
    52: ["UndefinedArgInFrom"],
    56: [],
    57: ["MultipleInstructionsDisallowed"] * 3,
    58: ["MultipleInstructionsDisallowed"] * 3,
    66: [],
    67: ["InvalidDefaultArgInFrom"],
    72: ["ExposeInvalidFormat"] * 3,
}
# These need an ignore file, and have tests of their own below.
IGNORED = [number for number, case in enumerate(CASES) if case["test"].startswith("testCopyIgnoredFile")]


def found_in(text: str, ignore: str = "", **options: Any) -> list[str]:
    """The names of the rules that were broken."""
    patterns = Patterns.parse(ignore) if ignore else None
    result = check_source(text, "Dockerfile", options_with(**options), ignore=patterns)
    return sorted(finding.rule.name for finding in result.findings)


@pytest.mark.parametrize("number", [n for n in range(len(CASES)) if n not in IGNORED])
def test_a_lint_case_gives_the_rules_buildkit_reports(number: int) -> None:
    expected = CORRECTED.get(number, CASES[number]["rules"])
    assert found_in(CASES[number]["dockerfile"]) == sorted(expected)


def test_what_was_meant_is_looked_for_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "builder.checks.instructions.did_you_mean", lambda name, known: asked.append(name) or ""
    )
    names = range(100)
    text = "FROM scratch\n" + "".join(f"LABEL l{n}=$missing{n}\n" for n in names)
    assert found_in(text) == ["UndefinedVar"] * 100
    assert len(asked) == 20


def test_there_are_the_22_rules_of_docker_with_their_pages() -> None:
    assert len(RULES) == 22
    pages = {rule.name: rule.url.split("/")[-2] for rule in RULES}
    assert pages["JSONArgsRecommended"] == "json-args-recommended"
    assert pages["FromPlatformFlagConstDisallowed"] == "from-platform-flag-const-disallowed"


@pytest.mark.parametrize(
    ("text", "ignore", "count"),
    [
        ("COPY Dockerfile .\nADD Dockerfile /x\n", "Dockerfile", 2),
        ("COPY ./Dockerfile .\n", "Dockerfile", 1),
        ("COPY . .\n", "Dockerfile", 0),
        ("COPY . .\n", "*", 1),
        ("COPY a/b .\n", "a", 1),
        ("COPY a .\n", "*\n!a", 0),
        ("COPY --from=busybox /Dockerfile .\n", "Dockerfile", 0),
        ("ADD https://example.invalid/Dockerfile .\n", "**", 0),
    ],
)
def test_copying_what_is_ignored_is_found(text: str, ignore: str, count: int) -> None:
    assert found_in(f"FROM scratch\n{text}", ignore) == ["CopyIgnoredFile"] * count


def test_a_build_argument_overrides_the_directive() -> None:
    text = "# check=skip=all\nFROM scratch as base\n"
    assert found_in(text) == []
    given = {"BUILDKIT_DOCKERFILE_CHECK": "skip=ConsistentInstructionCasing"}
    assert found_in(text, build_args=given) == ["FromAsCasing"]


def test_findings_can_be_made_errors() -> None:
    options = options_with()
    assert not check_source("FROM scratch as b\n", "D", options).failed
    assert check_source("# check=error=true\nFROM scratch as b\n", "D", options).failed
    assert not check_source("# check=error=true\nFROM scratch AS b\n", "D", options).failed


def test_a_wrong_check_directive_is_an_error_at_its_line() -> None:
    result = check_source("# check=skp=all\nFROM scratch\n", "Dockerfile", options_with())
    assert isinstance(result.error, DockerfileError)
    assert (str(result.error.span), result.error.hint) == ("Dockerfile:1:1", "did you mean `skip`?")


def test_a_comment_above_an_instruction_is_for_that_one_only() -> None:
    text = "FROM scratch\n# check=skip=JSONArgsRecommended\nCMD a\nENTRYPOINT b\n"
    assert found_in(text) == ["JSONArgsRecommended"]


def test_an_undefined_variable_gets_a_suggestion() -> None:
    (finding,) = check(parse_dockerfile("FROM scratch\nENV VERSION=1\nLABEL v=$VERSON\n"), options_with())
    assert "`VERSION`" in finding.message and finding.span.line == 3


def test_variables_of_an_unknown_base_are_not_called_undefined() -> None:
    text = "FROM debian\nCOPY $HOME_OF_BASE/x .\nCOPY $nope .\n"
    dockerfile, options = parse_dockerfile(text), options_with()
    assert check(dockerfile, options) == ()
    base = BaseWanted("docker.io/library/debian:latest", AMD64)
    config = ImageConfig(platform=AMD64, config=ContainerConfig(env=("PATH=/bin", "HOME_OF_BASE=/h")))
    assert messages(check(dockerfile, options, {base: ResolvedBase("", config)})) == [
        "variable `$nope` is not defined"
    ]


def messages(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.message for finding in findings]


def test_a_base_for_another_platform_is_found() -> None:
    dockerfile, options = parse_dockerfile("FROM debian\n"), options_with()
    base = BaseWanted("docker.io/library/debian:latest", AMD64)
    config = ImageConfig(platform=Platform("linux", "arm64"))
    (finding,) = check(dockerfile, options, {base: ResolvedBase("", config)})
    assert finding.rule.name == "InvalidBaseImagePlatform" and "linux/arm64" in finding.message


def test_without_a_target_all_stages_are_checked() -> None:
    text = "FROM scratch AS a\nCOPY $x .\nFROM scratch AS b\nCOPY $y .\n"
    assert found_in(text) == ["UndefinedVar"] * 2
    assert found_in(text, target="a") == ["UndefinedVar"]


def test_what_stands_before_a_mistake_is_checked_too() -> None:
    result = check_source("FROM scratch as b\nNONSENSE\n", "Dockerfile", options_with())
    assert [finding.rule.name for finding in result.findings] == ["FromAsCasing"]
    assert result.failed and result.error is not None and result.error.span is not None
    assert result.error.span.line == 2


def test_reports_show_rule_page_and_place() -> None:
    result = check_source("FROM scratch\nCMD x\nBAD\n", "Dockerfile", options_with())
    text = check_text_report(result)
    assert (
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        in text
    )
    assert "   2 | >>> CMD x" in text and "ERROR: unknown instruction: BAD" in text
    record = check_json_report(result, b"text", "Dockerfile")
    assert record["sources"] == [{"filename": "Dockerfile", "language": "Dockerfile", "data": "dGV4dA=="}]
    assert record["warnings"][0]["location"] == {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}
    assert record["buildError"]["message"] == "unknown instruction: BAD"


OUTLINE = """# version of the base
ARG VERSION=12
ARG UNUSED=1

FROM debian:${VERSION} AS deps
# JOBS how many at once
ARG JOBS=4
RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c make

# app the thing itself
FROM deps AS app
ARG VERSION
RUN --mount=type=ssh --mount=type=secret,id=token fetch

FROM scratch AS other
ARG ELSEWHERE
"""


def test_an_outline_leaves_out_what_the_platform_gives() -> None:
    text = "FROM scratch\nARG TARGETARCH\nARG BUILDPLATFORM=x\nARG HTTP_PROXY\n"
    outline = outline_of(parse_dockerfile(text), options_with())
    assert [argument.name for argument in outline.arguments] == ["BUILDPLATFORM", "HTTP_PROXY"]


def test_an_outline_lists_what_a_target_can_be_given() -> None:
    dockerfile = parse_dockerfile(OUTLINE)
    outline = outline_of(dockerfile, options_with(target="app", build_args={"JOBS": "8"}))
    assert [(a.name, a.value, a.description) for a in outline.arguments] == [
        ("VERSION", "12", ""),
        ("JOBS", "8", "how many at once"),
    ]
    assert [(m.name, m.required) for m in outline.secrets] == [("token", True)]
    assert [m.name for m in (*outline.ssh, *outline.caches)] == ["default", "/c"]
    assert outline.description == "the thing itself"
    assert "JOBS" in outline_text_report(outline)
    record = outline_json_report(outline, OUTLINE.encode())
    assert record["args"][1]["name"] == "JOBS"
    assert "description" not in record["args"][0]  # buildx leaves out what is empty


def test_targets_are_listed_with_the_default() -> None:
    targets = targets_of(parse_dockerfile(OUTLINE))
    assert [(t.name, t.base, t.default) for t in targets] == [
        ("deps", "debian:${VERSION}", False),
        ("app", "deps", False),
        ("other", "scratch", True),
    ]
    assert "other (default)" in targets_text_report(targets)
    assert targets_json_report(targets, b"")["targets"][1]["description"] == "the thing itself"
