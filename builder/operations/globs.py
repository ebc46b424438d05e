"""Go's `filepath.Match` and the `**` of `COPY --parents`, as compiled expressions over one path. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from runtime.errors import InvalidInput

_SPECIAL = frozenset("*?[\\")


def has_wildcard(pattern: str) -> bool:
    return not _SPECIAL.isdisjoint(pattern)


def unescape(pattern: str) -> str:
    """The literal name a pattern without live wildcards stands for."""
    return re.sub(r"\\(.)", r"\1", pattern)


@lru_cache(maxsize=512)
def compile_component(pattern: str) -> re.Pattern[str]:
    """One path component of a pattern; InvalidInput when brackets or escapes do not close."""
    expression = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif character == "[":
            piece, position = _bracket(pattern, position)
            expression += piece
        elif character == "\\":
            if position == len(pattern):
                raise _bad(pattern)
            expression += re.escape(pattern[position])
            position += 1
        else:
            expression += re.escape(character)
    return re.compile(f"(?s:{expression})")


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """A `[...]` class from after the bracket: `^` negates, ranges and escapes as in Go."""
    negated = pattern.startswith("^", position)
    position += negated
    pieces = ""
    while not pattern.startswith("]", position) or not pieces:
        low, position = _class_character(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_character(pattern, position + 1)
        if low <= high:
            pieces += f"{re.escape(low)}-{re.escape(high)}"
        else:
            pieces += "\0-\0"  # an empty range matches nothing
    return f"(?!/)[{'^' if negated else ''}{pieces}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith("\\", position):
        position += 1
    elif pattern.startswith(("-", "]"), position):
        raise _bad(pattern)
    if position >= len(pattern):
        raise _bad(pattern)
    return pattern[position], position + 1


def _bad(pattern: str) -> InvalidInput:
    return InvalidInput(f"invalid pattern {pattern!r}", hint="write `[[]` for a literal `[`")
