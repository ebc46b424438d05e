"""Shell patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?` only, both within a line (FEATURES A-23, A-24).

Matching steps a set of states through the text once, so it takes time linear in the text whatever the pattern; a regular
expression would try every way to share the text among five `*`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_STAR, _ANY = "*", "?"


class Glob(NamedTuple):
    """Tokens: `*`, `?`, or a literal character behind a `=`."""

    tokens: tuple[str, ...]

    @property
    def reversed(self) -> Glob:
        return Glob(self.tokens[::-1])


def parse_glob(text: str) -> Glob:
    r"""`\*`, `\?` and `\\` stand for themselves, `\}` and `\/` only need the backslash inside `${}`; ValueError for others."""
    tokens: list[str] = []
    for piece in re.findall(r"\\.|\\$|.", text, re.DOTALL):
        if piece in (r"\}", r"\/"):
            tokens.append("=" + piece[1])
        elif piece[0] == "\\":
            if piece[1:] not in ("*", "?", "\\"):
                raise ValueError(f"invalid escape '{piece}'")
            tokens.append("=" + piece[1])
        else:
            tokens.append(piece if piece in (_STAR, _ANY) else "=" + piece)
    return Glob(tuple(tokens))


def _closure(tokens: tuple[str, ...], states: set[int]) -> set[int]:
    """A star may match nothing."""
    found = set(states)
    for state in sorted(states):
        while state < len(tokens) and tokens[state] == _STAR:
            state += 1
            found.add(state)
    return found


def _step(tokens: tuple[str, ...], states: set[int], character: str) -> set[int]:
    after = set()
    for state in states:
        if state == len(tokens):
            continue
        token = tokens[state]
        if token == _STAR and character != "\n":
            after.add(state)
        elif token == "=" + character or (token == _ANY and character != "\n"):
            after.add(state + 1)
    return _closure(tokens, after)


def _match_end(glob: Glob, text: str, start: int, longest: bool) -> int | None:
    """Where a match that begins at `start` ends."""
    tokens, end = glob.tokens, None
    states = _closure(tokens, {0})
    for position in range(start, len(text) + 1):
        if len(tokens) in states:
            end = position
            if not longest:
                return end
        if not states or position == len(text):
            break
        states = _step(tokens, states, text[position])
    return end


def _starts(glob: Glob, text: str) -> list[bool]:
    """For each position, whether some match begins there: the reversed pattern, run backwards from everywhere."""
    tokens = glob.reversed.tokens
    first = _closure(tokens, {0})
    states = set(first)
    found = [False] * (len(text) + 1)
    for position in range(len(text), -1, -1):
        found[position] = len(tokens) in states
        if position:
            states = _step(tokens, states, text[position - 1]) | first
    return found


def trim_prefix(glob: Glob, text: str, longest: bool) -> str:
    end = _match_end(glob, text, 0, longest)
    return text if end is None else text[end:]


def trim_suffix(glob: Glob, text: str, longest: bool) -> str:
    return trim_prefix(glob.reversed, text[::-1], longest)[::-1]


def replace_first(glob: Glob, text: str, replacement: str) -> str:
    starts = _starts(glob, text)
    if True not in starts:
        return text
    start = starts.index(True)
    end = _match_end(glob, text, start, longest=True)
    return text[:start] + replacement + text[end:]


def replace_all(glob: Glob, text: str, replacement: str, room: int) -> str:
    """Every match. As in Go, `$0` in the replacement is the match, other `$name` nothing, `$$` a dollar; at most `room`."""
    starts = _starts(glob, text)
    pieces: list[str] = []
    position, last_end, used = 0, -1, 0
    while position <= len(text):
        end = _match_end(glob, text, position, longest=True) if starts[position] else None
        if end is not None and not (end == position == last_end):
            pieces.append(_instantiate(replacement, text[position:end]))
            used += len(pieces[-1])
            last_end = end
        if end is None or end <= position:
            pieces.append(text[position : position + 1])
            used += 1
            position += 1
        else:
            position = end
        if used > room:
            break  # the caller refuses the result
    return "".join(pieces)


def _instantiate(replacement: str, match: str) -> str:
    if "$" not in replacement:
        return replacement

    def value(found: re.Match[str]) -> str:
        if found.group() == "$$":
            return "$"
        return match if (found[1] or found[2]) == "0" else ""

    return re.sub(r"\$\$|\$\{(\w+)\}|\$(\w+)", value, replacement)
