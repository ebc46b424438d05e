"""One instruction as it is written: keyword, flags, arguments, heredocs, and where it stands.

A `Node` is what BuildKit's parser calls a node: nothing is expanded, quotes are still there. `parse_line` makes one from a
logical line by the grammar `instruction.lark`; what the words mean is decided in `instructions.py`. (Named tuples, here
and in `ast.py`: making a class of two dozen takes 2 ms as named tuples and 10 ms as dataclasses, of the 80 ms a cached
build may take in all.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from builder.dockerfile import tables
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.machine import Action, Machine, Terminal, Unexpected
from registry_client.tuples import NamedTuple
from runtime.spans import Span

# What Go's strings.TrimSpace removes; Python's str.strip() takes the four control characters FS, GS, RS and US besides.
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


class Heredoc(NamedTuple):
    """A body `<<name`. `expand` is off when the delimiter was quoted, `chomp` is `<<-`; the content keeps its tabs."""

    name: str
    content: str = ""
    expand: bool = True
    chomp: bool = False
    descriptor: int = 0

    @property
    def chomped(self) -> str:
        """The content as it is used: `<<-` takes the leading tabs off every line."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


class Comment(NamedTuple):
    text: str
    line: int


class Node(NamedTuple):
    """`args` of ENV and LABEL come in threes: key, value, and `=` or (legacy form) nothing."""

    keyword: str  # as written
    span: Span
    original: str
    flags: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[Comment, ...] = ()
    child: Node | None = None  # what ONBUILD is about

    @property
    def name(self) -> str:
        return self.keyword.upper()

    @property
    def has_heredocs(self) -> bool:
        """Could `<<` mean a heredoc here (FEATURES A-79)?"""
        inner = self.child if self.name == "ONBUILD" and self.child else self
        return inner.name in ("RUN", "COPY", "ADD") and not inner.json

    def locate(self, text: str) -> Span:
        """The place of `text` within the instruction, as near as can be told."""
        for number in range(self.span.line, self.span.last_line + 1):
            column = self.span.source.line(number).find(text) if text else -1
            if column >= 0:
                return Span(self.span.source, number, column + 1)
        return self.span

    def error(self, message: str, at: str = "", *, hint: str = "") -> DockerfileError:
        return DockerfileError(message, self.locate(at) if at else self.span, hint=hint)


class Arguments(NamedTuple):
    """What the grammar's rules answer; `parse_line` makes it a node."""

    keyword: str
    flags: tuple[str, ...]
    args: tuple[str, ...] = ()
    json: bool = False
    rest: str = ""  # of ONBUILD


def parse_line(line: str, span: Span, comments: tuple[Comment, ...] = (), escape: str = "\\") -> Node:
    """The node of one logical line."""
    text = line.strip(WHITE)
    if not text:
        return Node("", span, line, args=("",), comments=comments)
    try:
        found: Arguments = _machine(escape).run(text, _ACTIONS[escape])
    except _NotStrings as error:
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only",
            span,
            hint="quote every element, or drop the brackets for a shell command",
        ) from error
    except _PairError as error:
        raise DockerfileError(str(error), span, hint=error.hint) from error
    except Unexpected as error:
        raise DockerfileError(f"cannot read {span.source.line(span.line)!r}", span) from error
    child = None
    if found.rest:
        if re.match(r"(?i)ONBUILD(?![^\t\v\f\r ])", found.rest):
            raise DockerfileError(
                "chaining ONBUILD via `ONBUILD ONBUILD` is not allowed",
                span,
                hint="write one ONBUILD per trigger",
            )
        child = parse_line(found.rest, span, escape=escape)
    args = (child.keyword, *child.args) if child else found.args
    return Node(found.keyword, span, line, found.flags, args, found.json, comments=comments, child=child)


@cache
def _machine(escape: str) -> Machine:
    def adapt(terminal: Terminal) -> str:
        # FLAG stays: BuildKit's flags know the backslash only.
        if escape == "\\" or terminal.name == "FLAG":
            return terminal.pattern
        return terminal.pattern.replace(r"\\", re.escape(escape))

    return Machine(tables.INSTRUCTION, adapt)


# --- actions of the grammar ---------------------------------------------------------------------------------------


class _NotStrings(Exception):
    """A JSON array, but not one of strings: the one kind of bad JSON that is an error (FEATURES A-9)."""


class _PairError(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _flags(parts: list[Any]) -> tuple[str, ...]:
    return tuple(_unquote_flag(part.lstrip("\t\v\f\r ")) for part in parts)


def _unquote_flag(flag: str) -> str:
    if not re.search(r"""['"\\]""", flag):
        return flag
    pieces = re.findall(r"""\\.|'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^'"\\]+""", flag)
    return "".join(_unquote_piece(piece) for piece in pieces)


def _unquote_piece(piece: str) -> str:
    if piece[0] in "'\"":
        closed = len(piece) > 1 and piece[-1] == piece[0]
        piece = piece[1 : -1 if closed else None]
    return re.sub(r"\\(.)", r"\1", piece)


def _words(parts: list[Any]) -> Arguments:
    keyword, flags, *words = parts
    return Arguments(keyword, flags, tuple(word.lstrip("\t\v\f\r ") for word in words))


def _command(parts: list[Any]) -> Arguments:
    """`[…]` if it is JSON, else the text as one argument."""
    keyword, flags, *rest = parts
    if not rest:
        return Arguments(keyword, flags)
    text = rest[0].strip(WHITE)
    items = _json_strings(text)
    if items is not None:
        return Arguments(keyword, flags, items, json=True)
    return Arguments(keyword, flags, (text,))


def _list(parts: list[Any]) -> Arguments:
    keyword, flags, *rest = parts
    if len(rest) == 1:
        text = rest[0].strip(WHITE)
        items = _json_strings(text)
        if items is not None:
            return Arguments(keyword, flags, items, json=True)
        return Arguments(keyword, flags, tuple(re.split(r"[\t\v\f\r ]+", text)))
    return _words(parts)


def _json_strings(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None when it is no JSON, which makes it a shell command without further word."""
    if not text.startswith("["):
        return None
    try:
        items = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in items):
        raise _NotStrings
    return tuple(re.sub("[\ud800-\udfff]", "\ufffd", item) for item in items)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")  # NaN and Infinity, which Python takes


def _text(parts: list[Any]) -> Arguments:
    keyword, flags, *rest = parts
    return Arguments(keyword, flags, tuple(text.strip(WHITE) for text in rest))


def _health(parts: list[Any]) -> Arguments:
    keyword, flags, *rest = parts
    if not rest:
        return Arguments(keyword, flags)
    words = (rest[0].strip(WHITE), *(text.lstrip("\t\v\f\r ") for text in rest[1:]))
    items = _json_strings(words[1].strip(WHITE)) if len(words) > 1 else None
    if items is not None:
        return Arguments(keyword, flags, (words[0], *items), json=True)
    return Arguments(keyword, flags, words)


def _onbuild(parts: list[Any]) -> Arguments:
    keyword, flags, *rest = parts
    return Arguments(keyword, flags, rest=rest[0].strip(WHITE) if rest else "")


def _unknown(parts: list[Any]) -> Arguments:
    keyword, flags, *_rest = parts
    return Arguments(keyword, flags, ("",))


def _pair_words(escape: str) -> Action:
    """ARG: words with quotes left in; an escape character at the very end is dropped."""

    def arguments(parts: list[Any]) -> Arguments:
        keyword, flags, *words = parts
        kept = (_without_last_escape(word.lstrip(WHITE), escape) for word in words)
        return Arguments(keyword, flags, tuple(word for word in kept if word))

    return arguments


def _without_last_escape(word: str, escape: str) -> str:
    """Only where an escape means something: not within single quotes that were left open."""
    if not word.endswith(escape):
        return word
    mark = re.escape(escape)
    quoted = rf"""'[^']*(?:'|$)|"(?:{mark}.|[^"{mark}])*(?:"|{mark}?$)"""
    last = re.findall(rf"{quoted}|{mark}.|{mark}$|[^'\"{mark}]+", word)[-1]
    alone = (len(last) - len(last.rstrip(escape))) % 2 == 1
    return word[:-1] if alone and last[0] != "'" else word


def _pairs(escape: str) -> Action:
    """ENV and LABEL, in threes (FEATURES A-11)."""
    words = _pair_words(escape)

    def pairs(parts: list[Any]) -> Arguments:
        found: Arguments = words(parts)
        triples: list[str] = []
        for word in found.args:
            key, equals, value = word.partition("=")
            if not equals:
                raise _PairError(
                    f"can't find = in {json.dumps(word)}: must be of the form name=value",
                    "quote values with blanks",
                )
            triples += (key, value, "=")
        return found._replace(args=tuple(triples))

    return pairs


def _legacy(parts: list[Any]) -> Arguments:
    """`ENV KEY the rest of the line`."""
    keyword, flags, text = parts
    key, *value = re.split(r"[\t\v\f\r ]+", text.strip(WHITE), maxsplit=1)
    if not value:
        raise _PairError(f"{keyword.upper()} must have two arguments", f"write {keyword.upper()} {key}=value")
    return Arguments(keyword, flags, (key, value[0], ""))


def _start(parts: list[Any]) -> Any:
    return parts[0]


def _actions(escape: str) -> Mapping[str, Action]:
    return {
        "start": _start, "words": _words, "list": _list, "command": _command, "text": _text, "pairs": _pairs(escape),
        "legacy": _legacy, "arguments": _pair_words(escape), "health": _health, "onbuild": _onbuild, "unknown": _unknown, "flags": _flags,
    }  # fmt: skip


_ACTIONS = {"\\": _actions("\\"), "`": _actions("`")}
