"""Shell patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?` only, both within a line (FEATURES A-23, A-24).

Matching steps a set of states through the text once, so it takes time linear in the text whatever the pattern; a regular
expression would try every way to share the text among five `*`.
"""

from __future__ import annotations

import re

from registry_client.tuples import NamedTuple

_STAR, _ANY = "*", "?"


class Glob(NamedTuple):
    """Tokens: `*`, `?`, or a literal character behind a `=`. No two stars stand side by side."""

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
        elif piece != _STAR or tokens[-1:] != [_STAR]:
            tokens.append(piece if piece in (_STAR, _ANY) else "=" + piece)
    return Glob(tuple(tokens))


class _Automaton:
    """The states of a pattern as the bits of one number: bit n is "the first n tokens are matched"."""

    def __init__(self, glob: Glob) -> None:
        self.final = 1 << len(glob.tokens)
        self._stars = sum(1 << n for n, token in enumerate(glob.tokens) if token == _STAR)
        self._any = sum(1 << n for n, token in enumerate(glob.tokens) if token == _ANY)
        self._literals: dict[str, int] = {}
        for n, token in enumerate(glob.tokens):
            if token[0] == "=":
                self._literals[token[1]] = self._literals.get(token[1], 0) | 1 << n
        self.first = self._settled(1)

    def _settled(self, states: int) -> int:
        """A star may match nothing."""
        return states | (states & self._stars) << 1

    def step(self, states: int, character: str) -> int:
        moved = states & self._literals.get(character, 0)
        if character == "\n":
            return self._settled(moved << 1)
        return self._settled((moved | states & self._any) << 1 | states & self._stars)


def _match_end(glob: Glob, text: str, start: int, longest: bool) -> int | None:
    """Where a match that begins at `start` ends."""
    automaton = _Automaton(glob)
    states, end = automaton.first, None
    for position in range(start, len(text) + 1):
        if states & automaton.final:
            end = position
            if not longest:
                return end
        if not states or position == len(text):
            break
        states = automaton.step(states, text[position])
    return end


def _starts(glob: Glob, text: str) -> list[bool]:
    """For each position, whether some match begins there: the reversed pattern, run backwards from everywhere."""
    automaton = _Automaton(glob.reversed)
    states = automaton.first
    found = [False] * (len(text) + 1)
    for position in range(len(text), -1, -1):
        found[position] = bool(states & automaton.final)
        if position:
            states = automaton.step(states, text[position - 1]) | automaton.first
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
