"""Patterns of COPY sources: Go's filepath.Match, one path component at a time."""

from __future__ import annotations

import pytest

from builder.operations.globs import compile_component, has_wildcard, unescape
from runtime.errors import InvalidInput


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", ".txt", True),
        ("*.txt", "a.txtx", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[[]x", "[x", True),
        (r"\*x", "*x", True),
        (r"\*x", "ax", False),
        (r"[\]]", "]", True),
        ("a.c", "abc", False),
        ("*", "name\nwith line end", True),
        ("[c-a]", "b", False),
    ],
)
def test_matches_as_go_does(pattern: str, name: str, matches: bool) -> None:
    assert bool(compile_component(pattern).fullmatch(name)) is matches


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[a-", "[-a]", "x\\"])
def test_a_pattern_that_does_not_close_is_the_users_mistake(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="invalid pattern"):
        compile_component(pattern)


def test_only_live_characters_make_a_pattern() -> None:
    assert not has_wildcard("plain/name.txt")
    assert has_wildcard("plain/*.txt")
    assert unescape(r"a\*b") == "a*b"
