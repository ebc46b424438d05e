""".dockerignore: which paths of a context do not exist for the build (FEATURES A-84 … A-88).

The last pattern that matches a path or one of its parents decides; `!` takes a path back in, also below a directory that is
excluded. Paths are relative to the context, with `/`. Finding the right file is the context's business, not ours.

Each run of patterns of the same sign is one regular expression that has to end at a `/` or at the end of the path, which
covers the parents, so a path is looked at once for each change of sign, not once for each pattern.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from registry_client.tuples import NamedTuple
from runtime.errors import InvalidInput
from runtime.spans import Source, Span

_SPECIAL = frozenset("*?[]\\")
_BLANK = " \t\r\n\v\f\x85\xa0"


class Pattern(NamedTuple):
    """One line: the cleaned text, whether it takes back in, and where it stands."""

    text: str
    reinclude: bool = False
    line: int = 0


class Patterns:
    """The patterns of one ignore file, or of `--exclude`."""

    def __init__(self, patterns: Iterable[Pattern] = (), source: Source | None = None) -> None:
        self.patterns = tuple(patterns)
        self._source = source
        self._runs: list[tuple[bool, re.Pattern[str]]] | None = None
        self._reincluding: _Reincluding | None = None

    @classmethod
    def parse(cls, text: str, name: str = ".dockerignore") -> Patterns:
        """Read the text of an ignore file; InvalidInput where a pattern is malformed."""
        source = Source(name, text.removeprefix("\ufeff"))
        lines = enumerate(source.text.split("\n"), start=1)
        patterns = (_parse_line(line, number, source) for number, line in lines)
        return cls([pattern for pattern in patterns if pattern], source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    @property
    def has_reincludes(self) -> bool:
        return any(pattern.reinclude for pattern in self.patterns)

    def excludes(self, path: str, is_dir: bool = False) -> bool:
        """Is `path` left out? Directories and files are treated alike, as Docker does."""
        if path in ("", "."):
            return False  # the context itself always exists
        for reinclude, expression in reversed(self._compiled()):
            if expression.match(path):
                return not reinclude
        return False

    def may_reinclude_below(self, directory: str) -> bool:
        """Could something below an excluded directory be taken back in? May say yes when nothing is."""
        path = directory.strip("/")
        runs = self._compiled()
        decided = next((n for n in range(len(runs) - 1, -1, -1) if runs[n][1].match(path)), -1)
        # What matches the directory matches all below it; only later patterns can say otherwise.
        if self._reincluding is None:
            self._reincluding = _Reincluding(self._grouped())
        return self._reincluding.may_match_below(path, decided)

    def _grouped(self) -> list[tuple[bool, list[Pattern]]]:
        return [(sign, list(run)) for sign, run in groupby(self.patterns, key=lambda p: p.reinclude)]

    def _compiled(self) -> list[tuple[bool, re.Pattern[str]]]:
        if self._runs is None:
            self._runs = [
                (sign, re.compile(rf"(?:{'|'.join(_expression(p.text) for p in run)})(?=/|\Z)"))
                for sign, run in self._grouped()
            ]
        return self._runs


class _Reincluding:
    """The patterns that take back, found by the components they begin with: a hundred thousand of them, and as many
    directories to ask about, must not be multiplied."""

    def __init__(self, groups: list[tuple[bool, list[Pattern]]]) -> None:
        self._last_below: dict[
            str, int
        ] = {}  # directory -> the last run with a pattern that spells out it and more
        self._by_start: dict[
            str, list[tuple[int, str]]
        ] = {}  # components without anything special -> run, pattern
        for number, (reinclude, patterns) in enumerate(groups):
            for pattern in patterns if reinclude else ():
                self._add(number, pattern.text)

    def _add(self, number: int, pattern: str) -> None:
        start = ""
        for component in pattern.split("/"):
            if not _SPECIAL.isdisjoint(component):
                break
            start = f"{start}/{component}" if start else component
            self._last_below[start] = number
        self._by_start.setdefault(start, []).append((number, pattern))

    def may_match_below(self, directory: str, decided: int) -> bool:
        """Has a run behind number `decided` a pattern that could match something below `directory`?"""
        if self._last_below.get(directory, -1) > decided:
            return True
        start = directory
        while True:
            for number, pattern in reversed(self._by_start.get(start, ())):
                if number <= decided:
                    break
                if _may_match_below(pattern, directory):
                    return True
            if not start:
                return False
            start = start.rpartition("/")[0]


def _parse_line(line: str, number: int, source: Source) -> Pattern | None:
    if line.startswith("#"):
        return None  # an indented # is no comment
    text = line.strip(_BLANK)
    reinclude = text.startswith("!")
    if reinclude:
        text = text[1:].strip(_BLANK)
    if not text and not reinclude:
        return None
    span = Span(source, number)
    if not text:
        raise InvalidInput(
            'illegal exclusion pattern: "!"', span, hint="name what is to be taken back in after `!`"
        )
    cleaned = clean_pattern(text)
    try:
        _expression(cleaned)
    except ValueError as error:
        raise InvalidInput(f"invalid pattern {text!r}: {error}", span) from error
    return Pattern(cleaned, reinclude, number)


def clean_pattern(text: str) -> str:
    """Go's `path.Clean`, and without a leading slash: patterns are rooted at the context anyway."""
    cleaned = posixpath.normpath(text)
    return cleaned.lstrip("/") or "/" if cleaned.startswith("/") else cleaned


# --- one pattern as a regular expression --------------------------------------------------------------------------


def _expression(pattern: str) -> str:
    """The expression of one pattern; ValueError when it is malformed.

    Stars are written so that a match never has to be searched again: `*` reaches to the first place where what follows
    it fits, as long as another star of the same component can make up for it.
    """
    rest = pattern[2:] if pattern.startswith("**") else ""
    if rest and _SPECIAL.isdisjoint(rest) and not rest.startswith("/"):
        # `**foo` is "ends in foo" when nothing else in it is special, as in moby/patternmatcher.
        return "(?s:.*)" + re.escape(rest)
    tokens = _merge(list(_tokens(pattern)))
    pieces: list[str] = []
    for position, token in enumerate(tokens):
        if token == "*":
            pieces.append(_star(tokens, position))
        elif token == "**":
            # `foo/**` is what is below foo, not foo itself
            pieces.append("(?s:.*)" if position == len(tokens) - 1 else "(?:[^/]*+/)*?")
        elif not _taken_by_star(tokens, position):
            pieces.append(token)
    return "".join(pieces)


def _star(tokens: list[str], position: int) -> str:
    segment = _segment(tokens, position)
    if segment and _ends_with_star(tokens, position, segment):
        return f"(?>[^/]*?{''.join(segment)})"
    return "[^/]*"


def _segment(tokens: list[str], position: int) -> list[str]:
    """What stands between a star and the next special thing of its component."""
    segment = []
    for token in tokens[position + 1 :]:
        if token in ("*", "**", "/"):
            break
        segment.append(token)
    return segment


def _ends_with_star(tokens: list[str], position: int, segment: list[str]) -> bool:
    after = position + 1 + len(segment)
    return after < len(tokens) and tokens[after] == "*"


def _taken_by_star(tokens: list[str], position: int) -> bool:
    """Is this token part of a segment that `_star` already wrote?"""
    for before in range(position - 1, -1, -1):
        if tokens[before] == "*":
            segment = _segment(tokens, before)
            return position <= before + len(segment) and _ends_with_star(tokens, before, segment)
        if tokens[before] in ("**", "/"):
            return False
    return False


def _merge(tokens: list[str]) -> list[str]:
    """`**/` swallows its slash, and several in a row are one."""
    merged: list[str] = []
    for token in tokens:
        if merged and merged[-1] == "**" and token in ("/", "**"):
            continue
        merged.append(token)
    return merged


def _tokens(pattern: str) -> Iterator[str]:
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**", position):
            yield "**"
            position += 2
            continue
        position += 1
        if character == "*" or character == "/":
            yield character
        elif character == "?":
            yield "[^/]"
        elif character == "[":
            text, position = _bracket(pattern, position)
            yield text
        elif character == "\\":
            if position == len(pattern):
                raise ValueError("it ends in a backslash")
            yield re.escape(pattern[position])
            position += 1
        else:
            yield re.escape(character)


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """`[a-z]`, `[^a]`, from behind the bracket; characters may be escaped."""
    text, count = "[", 0
    if pattern.startswith("^", position):
        text, position = "[^", position + 1
    while True:
        if pattern.startswith("]", position) and count:
            return text + "]", position + 1
        low, position = _bracket_character(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _bracket_character(pattern, position + 1)
        if low > high:
            raise ValueError(f"the range {low}-{high} in [] is backwards")
        text += f"{re.escape(low)}-{re.escape(high)}"
        count += 1


def _bracket_character(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith("\\", position):
        position += 1
    elif pattern[position : position + 1] in ("-", "]"):
        raise ValueError("a range in [] is malformed")
    if position >= len(pattern):
        raise ValueError("[ is not closed")
    return pattern[position], position + 1


def _may_match_below(pattern: str, directory: str) -> bool:
    """Could `pattern` match something below `directory`? Component by component, until one of them ends."""
    for wanted, own in zip(pattern.split("/"), directory.split("/")):
        if "**" in wanted or "[" in wanted or "\\" in wanted:
            return True  # reaches over components, or may: `[/]` and `\/` are legal
        if not re.fullmatch(_expression(wanted), own):
            return False
    return True
