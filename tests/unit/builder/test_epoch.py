"""What SOURCE_DATE_EPOCH comes to (FEATURES A-98)."""

from __future__ import annotations

import pytest

from builder.dockerfile import parse_dockerfile
from builder.epoch import Moments, resolve_epoch
from builder.graph import GitSource, HttpSource
from runtime.errors import InvalidInput
from tests.support.dockerfile import options_with

PLAIN = "FROM scratch\n"
GLOBAL = "ARG SOURCE_DATE_EPOCH=7\nFROM scratch\n"
REMOTE = "FROM scratch AS src\nADD https://example.org/x.tar /\nFROM scratch\n"


def resolved(
    text: str, argument: str | None = None, own: int | None = None, context: int | None = None
) -> int | None:
    args = {} if argument is None else {"SOURCE_DATE_EPOCH": argument}
    asked: list[GitSource | HttpSource] = []

    def remote(source: GitSource | HttpSource) -> int | None:
        asked.append(source)
        return 42

    moments = Moments(context, remote)
    return resolve_epoch(parse_dockerfile(text), options_with(build_args=args), own, moments)


def test_without_any_there_is_none() -> None:
    assert resolved(PLAIN) is None


def test_a_build_argument_counts_before_the_environment_and_that_before_a_global_arg() -> None:
    assert resolved(GLOBAL) == 7
    assert resolved(GLOBAL, own=8) == 8
    assert resolved(GLOBAL, "9", own=8) == 9


def test_an_empty_build_argument_takes_the_default_away() -> None:
    assert resolved(GLOBAL, "", own=8) is None


def test_context_is_the_time_of_a_remote_context_and_none_of_a_directory() -> None:
    assert resolved(PLAIN, "context", context=5) == 5
    assert resolved(PLAIN, "context") is None


def test_a_stage_that_is_one_remote_add_gives_its_time() -> None:
    assert resolved(REMOTE, "src") == 42
    assert resolved("ARG SOURCE_DATE_EPOCH=src\n" + REMOTE) == 42


def test_a_named_context_gives_its_time_if_it_is_a_remote() -> None:
    for value, time in (
        ("https://example.org/x.git#v1", 42),
        ("docker-image://busybox", None),
        ("./dir", None),
    ):
        options = options_with(build_args={"SOURCE_DATE_EPOCH": "extra"}, contexts={"extra": value})
        found = resolve_epoch(parse_dockerfile(PLAIN), options, None, Moments(None, lambda source: 42))
        assert found == time


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch AS src\nADD https://example.org/x /\nENV a=b\n",
        "FROM scratch AS src\nADD https://example.org/x https://example.org/y /z/\n",
        "FROM scratch AS src\nADD file /\n",
        "FROM busybox AS src\nADD https://example.org/x /\n",
    ],
)
def test_a_stage_of_anything_else_has_no_time(text: str) -> None:
    with pytest.raises(InvalidInput, match="names stage src, which has no time"):
        resolved(text, "src")


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 12, "١"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="SOURCE_DATE_EPOCH is"):
        resolved(PLAIN, text)
