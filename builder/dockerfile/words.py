"""Shell words: expand `$v`, `${v…}`, quotes and escapes in the words of a Dockerfile (FEATURES A-20 … A-28).

`Lexer.expand` gives one word, `Lexer.words` splits what comes out. Both are pure; the variables are handed in. The
grammar is `shell.lark`; its actions below compute values right away, each in two readings: `cooked`, with escapes
done, and `raw`, with escapes kept, since only what surrounds a piece decides which one is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from builder.dockerfile import globs, tables
from builder.dockerfile.machine import Machine, Terminal, Unexpected
from builder.dockerfile.nodes import WHITE
from registry_client.tuples import NamedTuple

# `ENV a=$a$a`, forty times, would be a terabyte.
LIMIT = 1 << 22

_NOTHING_SPECIAL = re.compile(r"""[^\\`'"$]*""")
_NO_VARIABLES: Mapping[str, str] = {}


class WordError(Exception):
    """The word cannot be expanded; the message is for the user."""


class Piece(NamedTuple):
    """A part of a word. `whole`: it came from quotes or an escape, so blanks in it do not split."""

    cooked: str
    raw: str
    whole: bool = False


class Expanded(NamedTuple):
    text: str
    matched: frozenset[str] = frozenset()
    unmatched: frozenset[str] = frozenset()  # variables that are not set


class Lexer(NamedTuple):
    """How words are read: with which escape character, and how much of the quoting stays."""

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    quotes_are_text: bool = False  # heredoc bodies
    keep_unset: bool = False  # leave variables that are not set as they are written
    joins_heredocs: bool = False  # blanks behind `<<` do not split

    def expand(self, word: str, variables: Mapping[str, str] = _NO_VARIABLES) -> str:
        """The word with everything expanded."""
        return self.expand_fully(word, variables).text

    def expand_fully(self, word: str, variables: Mapping[str, str] = _NO_VARIABLES) -> Expanded:
        """The word with everything expanded, and which variables it names."""
        if _NOTHING_SPECIAL.fullmatch(word):
            return Expanded(word)
        evaluation = _Evaluation(self, variables)
        pieces = evaluation.pieces(word)
        text = "".join(self._reading(piece) for piece in pieces)
        return Expanded(text, frozenset(evaluation.matched), frozenset(evaluation.unmatched))

    def words(self, word: str, variables: Mapping[str, str] = _NO_VARIABLES) -> list[str]:
        """Expand, and split at blanks that are not quoted or escaped."""
        words, current = [], ""
        for piece in _Evaluation(self, variables).pieces(word):
            text = self._reading(piece)
            if piece.whole:
                current += text
                continue
            for part in re.findall(self._part, text):
                if part[0] not in WHITE:
                    current += part
                elif current:
                    words.append(current)
                    current = ""
        return [*words, current] if current else words

    @property
    def _part(self) -> str:
        blanks_or_text = f"[{WHITE}]+|[^{WHITE}]+"
        return f"<<[{WHITE}]*|[{WHITE}]+|(?:(?!<<)[^{WHITE}])+" if self.joins_heredocs else blanks_or_text

    def _reading(self, piece: Piece) -> str:
        return piece.raw if self.raw_escapes else piece.cooked


class _Evaluation:
    """One word being expanded: the actions of `shell.lark`."""

    def __init__(self, lexer: Lexer, variables: Mapping[str, str]) -> None:
        self._lexer = lexer
        self._variables = variables
        self._room = LIMIT
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def pieces(self, word: str) -> list[Piece]:
        try:
            pieces: list[Piece] = _machine(self._lexer.escape, self._lexer.quotes_are_text).run(
                word, self._actions()
            )
        except Unexpected as error:
            raise WordError(_explain(word, error)) from error
        return pieces

    def _actions(self) -> Mapping[str, Callable[[list[Any]], Any]]:
        return {
            "start": list, "plain": _plain, "inside": _plain, "before_slash": _plain, "quoted_plain": _plain,
            "escaped": _escaped, "quoted_escape": _quoted_escape, "single": self._single, "quoted": self._quoted,
            "word": _joined, "pattern": _joined, "reference": self._reference, "braced": self._braced,
            "default": self._default, "trim": self._trim, "replace": self._replace,
        }  # fmt: skip

    def _single(self, parts: list[Any]) -> Piece:
        text = parts[0] if self._lexer.raw_quotes else parts[0][1:-1]
        return Piece(text, text, whole=True)

    def _quoted(self, parts: list[Any]) -> Piece:
        mark = '"' if self._lexer.raw_quotes else ""
        inner = _joined(parts)
        return Piece(mark + inner.cooked + mark, mark + inner.raw + mark, whole=True)

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def _answer(self, text: str) -> Piece:
        self._room -= len(text)
        if self._room < 0:
            raise WordError(f"the expansion is larger than {LIMIT >> 20} MiB")
        return Piece(text, text)

    def _reference(self, parts: list[Any]) -> Piece:
        value = self._value(parts[0][1:])
        if value is None:
            value = parts[0] if self._lexer.keep_unset else ""
        return self._answer(value)

    def _braced(self, parts: list[Any]) -> Piece:
        value = self._value(parts[0])
        if value is None:
            value = f"${{{parts[0]}}}" if self._lexer.keep_unset else ""
        return self._answer(value)

    def _default(self, parts: list[Any]) -> Piece:
        name, operator, word = parts
        value = self._value(name)
        if value is None and self._lexer.keep_unset:
            return self._answer(f"${{{name}{operator}{word.cooked}}}")
        missing = value is None or (operator[0] == ":" and value == "")
        if operator[-1] == "+":
            return self._answer("" if missing else word.cooked)
        if operator[-1] == "?" and missing:
            reason = "unset" if value is None else "empty"
            raise WordError(f"{name}: {word.cooked or f'is not allowed to be {reason}'}")
        return self._answer(word.cooked if missing or value is None else value)

    def _trim(self, parts: list[Any]) -> Piece:
        name, operator, word = parts
        value = self._value(name)
        if value is None and self._lexer.keep_unset:
            return self._answer(f"${{{name}{operator}{word.raw}}}")
        longest = word.raw.startswith(operator)
        pattern = _glob(word.raw[1:] if longest else word.raw)
        if operator == "#":
            return self._answer(globs.trim_prefix(pattern, value or "", longest))
        return self._answer(globs.trim_suffix(pattern, value or "", longest))

    def _replace(self, parts: list[Any]) -> Piece:
        name, slash, pattern, replacement = parts
        value = self._value(name)
        if value is None and self._lexer.keep_unset:
            return self._answer(f"${{{name}/{pattern.raw}/{replacement.raw}}}")
        glob = _glob(pattern.raw)
        if slash == "//":
            return self._answer(globs.replace_all(glob, value or "", replacement.raw, self._room))
        return self._answer(globs.replace_first(glob, value or "", replacement.raw))


def _plain(parts: list[Any]) -> Piece:
    return Piece(parts[0], parts[0])


def _escaped(parts: list[Any]) -> Piece:
    return Piece(parts[0][1:], parts[0], whole=True)


def _quoted_escape(parts: list[Any]) -> Piece:
    """Within `"…"` only the quote, `$` and the escape character can be escaped; raw, BuildKit doubles a lone one."""
    text: str = parts[0]
    return Piece(text[1:], text) if len(text) == 2 else Piece(text, text + text)


def _joined(parts: list[Any]) -> Piece:
    return Piece("".join(part.cooked for part in parts), "".join(part.raw for part in parts))


def _glob(text: str) -> globs.Glob:
    try:
        return globs.parse_glob(text)
    except ValueError as error:
        raise WordError(f"invalid pattern ({text}) in substitution: {error}") from error


@cache
def _machine(escape: str, quotes_are_text: bool) -> Machine:
    def adapt(terminal: Terminal) -> str | None:
        pattern = terminal.pattern
        if quotes_are_text:
            if terminal.name in ("SINGLE", "_QUOTE"):
                return None
            if terminal.name in ("PLAIN", "INSIDE_BRACES", "BEFORE_SLASH"):
                pattern = pattern.replace("'\"", "")
        return pattern if escape == "\\" else pattern.replace(r"\\", re.escape(escape))

    return Machine(tables.SHELL, adapt)


def _explain(word: str, error: Unexpected) -> str:
    """Say in words what was wrong at the place where the grammar gave up."""
    rest = word[error.position :]
    shown = word if len(word) <= 60 else word[:60] + "…"
    if "DEFAULT" in error.expected:
        reason = f"unsupported modifier ({rest[:2]}) in substitution" if rest else "missing '}'"
    elif error.expected == {"NAME"}:
        reason = "bad substitution" if rest else "missing '}'"
    elif rest.startswith("'"):
        reason = "no matching single quote"
    elif rest.startswith('"') or "QUOTED" in error.expected:
        reason = "no matching double quote"
    elif "_SLASH" in error.expected:
        reason = "missing '/' in ${}"
    else:
        reason = "missing '}'" if "_CLOSE" in error.expected else "bad substitution"
    return f"cannot expand `{shown}`: {reason}"
