"""`when:` and `if:`: what holds, and why."""

from __future__ import annotations

import pytest

from pipeline.conditions import Clause, Condition, Facts, parse_expression, path_matches
from runtime.errors import InvalidInput
from runtime.spans import Source, Span

SPAN = Span(Source("pipe.yaml"), 1)
VALUES = {"git.branch": "main", "CI": "true", "N": "3.10", "EMPTY": ""}


def holds(text: str) -> bool:
    return Condition((), parse_expression(text, SPAN)).decide(Facts(VALUES.get)).holds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('git.branch == "main"', True),
        ("git.branch != 'main'", False),
        ("CI", True),
        ("!CI", False),
        ("EMPTY || CI && MISSING", False),
        ("(EMPTY || CI) && !MISSING", True),
        ('git.branch =~ "^(main|release/.*)$"', True),
        ('git.branch !~ "^rel"', True),
        ("N == 3.10", True),
        ("true && !false", True),
        ("MISSING == ''", True),
    ],
)
def test_expressions(text: str, value: bool) -> None:
    assert holds(text) is value


@pytest.mark.parametrize(
    "text", ["", "git.branch ==", "(a", "a b", "a = b", "$x", "a =~ b", 'a =~ "("', "!" * 500 + "a"]
)
def test_a_broken_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_expression(text, SPAN)


def decide(changed: tuple[str, ...] | None = (), **clause: tuple[str, ...]) -> tuple[bool, str]:
    facts = Facts(VALUES.get, changed, lambda pattern: pattern == "there")
    verdict = Condition((Clause(**clause),)).decide(facts)  # type: ignore[arg-type]
    return verdict.holds, verdict.reason


def test_branch_globs_take_and_take_away() -> None:
    assert decide(branch=("ma*",))[0]
    assert not decide(branch=("release/*",))[0]
    assert not decide(branch=("*", "!main"))[0]
    assert decide(branch=("!release/*",))[0]


def test_a_tag_can_be_asked_for_at_all() -> None:
    assert not decide(tag=("true",))[0]
    assert decide(tag=("false",))[0]


def test_changes_hold_for_a_matching_file_and_name_it() -> None:
    assert decide(("src/a/b.py", "README"), changes=("src/**/*.py",)) == (True, "src/a/b.py changed")
    assert decide(("docs/x.md",), changes=("src/**",))[0] is False


def test_unknown_changes_hold_but_say_so() -> None:
    held, reason = decide(None, changes=("src/**",))
    assert held
    assert "unknown" in reason


def test_one_of_several_clauses_is_enough() -> None:
    condition = Condition((Clause(branch=("x",)), Clause(exists=("there",))))
    assert condition.decide(Facts(VALUES.get, (), lambda pattern: pattern == "there")).holds


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("a/b.py", "a/*.py", True),
        ("a/c/b.py", "a/*.py", False),
        ("a/c/b.py", "a/**/*.py", True),
        ("a/b.py", "a/**/*.py", True),
        ("a/b/c", "a", True),
        ("ab", "a", False),
        ("/reports/u.xml", "/reports/*.xml", True),
        ("./x", "x", False),
        ("x.py", "./x.py", True),
        ("a?", "a?", True),
        ("a+b", "a+b", True),
    ],
)
def test_path_globs(path: str, pattern: str, matches: bool) -> None:
    assert path_matches(path, pattern) is matches
