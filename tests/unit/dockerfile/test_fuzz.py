"""Whatever is written, the answer is a Dockerfile or one error of ours: no traceback, no hang, no stack overflow."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.checks import check_source
from builder.dockerfile import parse_dockerfile
from builder.dockerfile.words import Lexer, WordError
from builder.ignore import Patterns
from builder.lower import lower
from runtime.errors import InvalidInput, PipeError
from tests.support import REPOSITORY
from tests.support.dockerfile import options_with, resolved

REAL = REPOSITORY / "tests" / "data" / "dockerfile" / "real"

QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)

PIECES = st.sampled_from(
    [
        "FROM ", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "ONBUILD ", "HEALTHCHECK ", "EXPOSE ", "VOLUME ",
        "WORKDIR ", "USER ", "SHELL ", "STOPSIGNAL ", "CMD ", "ENTRYPOINT ", "scratch", "busybox", " AS a", "--from=a ",
        "--mount=type=", "cache,", "target=/x ", "secret,id=", "--chmod=7 ", "--link ", "--platform=$X ", "\\\n", "\n",
        "\n\n", "# x\n", "# escape=`\n", "# check=skip=all\n", "`\n", "<<EOF", "<<-'E' ", "EOF\n", "E\n", '["a"]',
        "[1]", "[", "]", '"', "'", "$", "${", "}", "${a:-", "${a##", "${a//", "/", "=", "a=b ", "\\", "\t", "\r\n",
        " ", "a", "é", "\ufeff", "\x00", "0", "99999999999", "-", "..", "*", "http://x/y", "http://[", "git@h:x", "#",
    ]
)  # fmt: skip


def survives(text: str | bytes) -> None:
    """Parse, check and lower `text`; every error is one of ours."""
    try:
        dockerfile = parse_dockerfile(text)
        options = options_with(build_args={"X": "linux/arm64"})
        lower(dockerfile, options, resolved(dockerfile, options))
    except PipeError as error:
        assert str(error)
        assert error.message == error.message.strip()
    result = check_source(text, "Dockerfile", options_with(), ignore=Patterns.parse("x\n"))
    assert result.error is None or isinstance(result.error, InvalidInput)


@QUIET
@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_sequence_of_pieces_is_parsed_or_refused(text: str) -> None:
    survives("FROM scratch\n" + text)
    survives(text)


@QUIET
@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    survives(data)
    survives(b"FROM scratch\nLABEL a=" + data)


@QUIET
@given(st.text(alphabet="ab$${}:-+?#%/\\'\"`*. ", max_size=40), st.booleans())
def test_any_word_is_expanded_or_refused(word: str, text: bool) -> None:
    for escape in "\\`":
        try:
            Lexer(escape, quotes_are_text=text).words(word, {"a": "a/b*c", "b": ""})
        except WordError as error:
            assert str(error)


@QUIET
@given(st.text(alphabet="ab*?[]^-!\\/#. \n", max_size=40))
def test_any_ignore_file_is_read_or_refused(text: str) -> None:
    try:
        patterns = Patterns.parse(text)
    except InvalidInput:
        return
    for path in ("a", "a/b", "b/a/a"):
        patterns.excludes(path)
        patterns.may_reinclude_below(path)


@pytest.mark.parametrize("path", sorted(REAL.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_a_damaged_real_dockerfile_is_parsed_or_refused(path: Any) -> None:
    chance, original = random.Random(path.name), path.read_bytes()
    for _round in range(10):
        data = bytearray(original)
        for _change in range(chance.randint(1, 8)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b"\n", b"\\", b'"', b"$", b"<<", b"\xff", b"["]
            )
        survives(bytes(data))


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch\nRUN " + "[" * 100_000,
        "FROM scratch\nCMD " + '["a",' * 50_000,
        "FROM scratch\n" + "ONBUILD " * 8_000 + "RUN x",
        "FROM scratch\nENV a=" + "${a:-" * 10_000 + "}" * 10_000,
        "FROM scratch\nENV " + " ".join(f"a{n}=b" for n in range(5_000)),
        "FROM scratch\nRUN x" + " \\\n" * 50_000 + "y",
        "FROM scratch\nRUN " + "<<E " * 2_000,
        "FROM scratch\nCOPY --exclude=" + "*a" * 2_000 + "b . .",
        "FROM scratch\nENV a="
        + "a" * 60_000
        + "\nENV b=${a//"
        + "*a" * 200
        + "b/x} c=${a#"
        + "*a" * 200
        + "b}",
        "FROM scratch\nLABEL " + "'" * 30_001,
        "FROM scratch\nEXPOSE " + "0-65535 " * 5_000,
        "FROM scratch\nCOPY <<E /x\n" + "echo line $HOME\n" * 30_000 + "E\n",
        "FROM scratch\n" + "".join(f"ENV e{n}=b\n" for n in range(5_000)),
        "FROM scratch\n" + "".join(f"ARG a{n}=b\n" for n in range(5_000)),
        "FROM scratch\n" + "".join(f"LABEL l{n}=b\n" for n in range(5_000)),
        "FROM scratch\n" + "".join(f"EXPOSE {n}\n" for n in range(1, 5_000)),
        "FROM scratch\n" + "".join(f"VOLUME /v{n}\n" for n in range(5_000)),
        "FROM scratch\n" + "".join(f"ONBUILD RUN {n}\n" for n in range(5_000)),
        "FROM scratch\n" + "# comment\n" * 200_000 + "RUN x\n",
        "FROM scratch AS s0\n"
        + "".join(f"FROM s{n} AS s{n + 1}\nCOPY --from=s{n} / /x\n" for n in range(1_500)),
    ],
    ids=lambda text: text[13:40],
)
def test_a_hostile_text_takes_time_in_proportion_to_its_length(text: str) -> None:
    survives(text)
