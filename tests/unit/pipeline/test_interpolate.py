"""Variables in values: Compose's forms, contexts, and what must never reach a script."""

from __future__ import annotations

import pytest

from pipeline.config.interpolate import (
    Unset,
    expand,
    fill,
    has_placeholder,
    placeholders,
    script_variables,
    unknown_context,
)
from runtime.errors import InvalidInput
from runtime.spans import Source, Span

SPAN = Span(Source("pipe.yaml", "x"), 3, 7)
VALUES = {"SET": "v", "EMPTY": "", "git.branch": "main"}


def lookup(path: str) -> str | None:
    if path.startswith(("matrix.", "images.", "stages.")) or "." not in path or path in VALUES:
        return VALUES.get(path)
    raise unknown_context(path.partition(".")[0])


def expanded(text: str) -> str:
    return expand(text, lookup, SPAN, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$SET", "v"),
        ("${SET}", "v"),
        ("a$SET.b", "av.b"),
        ("${NONE:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${SET:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${NONE+r}", ""),
        ("${SET:?needed}", "v"),
        ("${EMPTY?needed}", ""),
        ("${NONE:-${SET}}", "v"),
        ("${NONE:-a${NONE:-b}c}", "abc"),
        ("$$SET", "$SET"),
        ("$${SET}", "${SET}"),
        ("$$$SET", "$v"),
        ("${NONE:-$$x}", "$x"),
        ("${git.branch}", "main"),
        ("${git.branch:-x}", "main"),
        ("no dollar", "no dollar"),
    ],
)
def test_every_form_of_compose(text: str, value: str) -> None:
    assert expanded(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE:?give it}", "`NONE` is not set: give it"),
        ("${EMPTY:?}", "`EMPTY` is not set"),
        ("${SET", "never closed"),
        ("${}", "without a name"),
        ("${SET/a/b}", "`/a/b` after `SET`"),
        ("a $ b", "a lone `$`"),
        ("${gti.branch}", "unknown context"),
    ],
)
def test_a_broken_variable_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        expanded(text)
    assert message in caught.value.message
    assert str(caught.value.span) == "pipe.yaml:3:7"


def test_an_unknown_context_names_the_nearest() -> None:
    with pytest.raises(InvalidInput) as caught:
        expanded("${gti.branch}")
    assert caught.value.hint == "did you mean `git`?"


def test_an_unset_variable_is_empty_and_noted() -> None:
    noted: list[Unset] = []
    assert expand("a${NONE}b", lookup, SPAN, noted) == "ab"
    assert [unset.name for unset in noted] == ["NONE"]


def test_what_is_known_later_is_filled_in_later() -> None:
    text = expanded("x-${matrix.python}-${images.app.digest:-none}-$$y")
    assert has_placeholder(text)
    assert placeholders(text) == ["matrix.python", "images.app.digest"]
    known = {"matrix.python": "3.12"}
    half = fill(text, known.__getitem__)
    assert placeholders(half) == ["images.app.digest"]
    assert fill(half, lambda path: None) == "x-3.12-none-$y"


def test_a_value_can_not_become_an_expression() -> None:
    VALUES["EVIL"] = "${SET} $SET"
    try:
        assert expanded("${EVIL}") == "${SET} $SET"
    finally:
        del VALUES["EVIL"]


def test_a_context_in_a_script_becomes_a_variable() -> None:
    script, used = script_variables(
        "echo ${git.branch} ${matrix.py:-3} ${HOME} $x \\${git.sha}", SPAN, lookup
    )
    assert script == "echo ${PIPE_GIT_BRANCH} ${PIPE_MATRIX_PY:-3} ${HOME} $x \\${git.sha}"
    assert used == ("git.branch", "matrix.py")


def test_other_templates_in_a_script_are_left_alone() -> None:
    script, used = script_variables("node -e '`${user.name}`'", SPAN, lookup)
    assert (script, used) == ("node -e '`${user.name}`'", ())
