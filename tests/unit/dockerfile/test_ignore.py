"""Ignore files, judged by moby/patternmatcher's tables and by a slow matcher that is easy to check (FEATURES A-84 … A-88)."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from builder import ignore
from builder.ignore import Pattern, Patterns, clean_pattern
from runtime.errors import InvalidInput
from tests.support import REPOSITORY

CASES = json.loads((REPOSITORY / "tests" / "data" / "dockerfile" / "ignore-cases.json").read_text())


@pytest.mark.parametrize("case", CASES["single"], ids=lambda c: f"{c['pattern']} {c['path']}")
def test_a_pattern_matches_as_in_patternmatcher(case: dict[str, object]) -> None:
    patterns = Patterns([Pattern(clean_pattern(str(case["pattern"])))])
    assert patterns.excludes(str(case["path"])) == case["match"]


@pytest.mark.parametrize("case", CASES["multi"], ids=lambda c: f"{c['patterns']} {c['path']}")
def test_a_list_matches_as_in_patternmatcher(case: dict[str, list[str]]) -> None:
    assert Patterns.parse("\n".join(case["patterns"])).excludes(str(case["path"])) == case["match"]


def test_the_last_match_wins_and_takes_back_below_an_excluded_directory() -> None:
    patterns = Patterns.parse("*\n!src\nsrc/secret\n!src/secret/public*\n")
    excluded = {
        path: patterns.excludes(path) for path in ("a", "src", "src/a", "src/secret", "src/secret/public.pem")
    }
    assert excluded == {
        "a": True,
        "src": False,
        "src/a": False,
        "src/secret": True,
        "src/secret/public.pem": False,
    }


def test_a_walk_may_skip_a_directory_only_when_nothing_below_comes_back() -> None:
    patterns = Patterns.parse("*\n!src/deep/keep\n")
    assert patterns.may_reinclude_below("src")
    assert patterns.may_reinclude_below("src/deep")
    assert not patterns.may_reinclude_below("other")
    assert not Patterns.parse("!keep/x\nkeep\n").may_reinclude_below("keep")


def test_comments_blanks_and_slashes_are_read_as_docker_reads_them() -> None:
    text = "\ufeff# comment\n  # not a comment\n\n  /lead/ \r\n! spaced \n./a//b/../c\n"
    found = [(pattern.text, pattern.reinclude) for pattern in Patterns.parse(text).patterns]
    assert found == [("# not a comment", False), ("lead", False), ("spaced", True), ("a/c", False)]


def test_the_context_itself_is_never_excluded() -> None:
    assert not Patterns.parse("*\n").excludes("")
    assert not Patterns.parse(".\n").excludes("a")


@pytest.mark.parametrize("text", ["!", "a\n! \n", "[a", "a\\", "[]a]", "[a-"])
def test_a_malformed_pattern_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Patterns.parse(text, "app.dockerignore")
    assert caught.value.span is not None
    assert str(caught.value.span).startswith(f"app.dockerignore:{len(text.splitlines())}:")


def test_hostile_patterns_take_no_time() -> None:
    patterns = Patterns.parse("*a*a*a*a*a*a*a*a*a*a*b\n**/x/**/x/**/x/**/x/**/y\n" + "?*" * 60 + "z\n")
    # tried one by one, the ways to share these letters among the stars would take years
    assert not patterns.excludes("a" * 200 + "/x" * 40)


# --- against a matcher that tries everything ----------------------------------------------------------------------


def component_matches(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(component_matches(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and component_matches(pattern[1:], name[1:])


def path_matches(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern == ["**"]:
        return bool(path)
    if pattern[0] == "**":
        return any(path_matches(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and component_matches(pattern[0], path[0]) and path_matches(pattern[1:], path[1:])


def excluded_slowly(lines: list[str], path: str) -> bool:
    parts, excluded = path.split("/"), False
    for line in lines:
        pattern = line.removeprefix("!").split("/")
        if any(path_matches(pattern, parts[:count]) for count in range(1, len(parts) + 1)):
            excluded = not line.startswith("!")
    return excluded


def test_random_patterns_agree_with_trying_everything_and_pruning_hides_nothing() -> None:
    chance = random.Random(7)
    names = ["a", "b", "ab", "aab"]
    paths = ["/".join(parts) for depth in (1, 2, 3) for parts in itertools.product(names, repeat=depth)]
    components = ["a", "b", "*", "a*", "*b", "?", "**", "*a*b", "ab", "a?b*"]
    for _round in range(400):
        lines = [
            chance.choice(["", "!"]) + "/".join(chance.choices(components, k=chance.randint(1, 3)))
            for _line in range(chance.randint(1, 4))
        ]
        patterns = Patterns.parse("\n".join(lines))
        for path in chance.sample(paths, 12):
            assert patterns.excludes(path) == excluded_slowly(lines, path), (lines, path)
        for directory in names:
            if patterns.excludes(directory) and not patterns.may_reinclude_below(directory):
                below = [path for path in paths if path.startswith(directory + "/")]
                assert all(patterns.excludes(path) for path in below), (lines, directory)


def test_many_patterns_and_many_directories_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    honest = ignore._may_match_below
    monkeypatch.setattr(ignore, "_may_match_below", lambda *words: compared.append(words) or honest(*words))
    text = "*\n" + "".join(f"!src/mod{n}/*/x\n!other{n}\n" for n in range(2_000))
    patterns = Patterns.parse(text)
    answers = [patterns.may_reinclude_below(f"src/mod{n}") for n in range(1_000, 3_000)]
    assert answers == [True] * 1_000 + [False] * 1_000
    assert len(compared) <= 2_000
