"""Where a parser of HCL stands in a text, and the small steps it takes there."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NoReturn

from pipeline.bake.hcl.nodes import HclError

IDENTIFIER = re.compile(r"[^\W\d][\w-]*")
_BLANKS = re.compile(r"(?:[ \t\r]|(?:#|//)[^\n]*|/\*.*?\*/)+", re.DOTALL)
_SPACE = re.compile(r"(?:[ \t\r\n]|(?:#|//)[^\n]*|/\*.*?\*/)+", re.DOTALL)


class Cursor:
    """Comments and blanks are stepped over; the end of a line too, except where it means something."""

    def __init__(self, text: str, name: str, line: int = 1) -> None:
        self._text, self._name, self._line = text, name, line
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._at = 0
        self._lines = False  # whether a line's end means something where we are

    def _place(self) -> str:
        return f"{self._name}:{self._line + bisect_left(self._ends, self._at)}"

    def _fail(self, message: str) -> NoReturn:
        found = self._text[self._at : self._at + 20].split("\n")[0] or "the end"
        raise HclError(self._place(), f"{message}, not {found!r}")

    def _space(self) -> None:
        if found := (_BLANKS if self._lines else _SPACE).match(self._text, self._at):
            self._at = found.end()

    def _skip_lines(self) -> None:
        if found := _SPACE.match(self._text, self._at):
            self._at = found.end()

    def _sees(self, word: str) -> bool:
        self._space()
        return self._text.startswith(word, self._at)

    def _takes(self, word: str) -> bool:
        if self._sees(word):
            self._at += len(word)
            return True
        return False

    def _need(self, word: str) -> None:
        if not self._takes(word):
            self._fail(f"want {word!r}")

    def _identifier(self) -> str:
        self._space()
        found = IDENTIFIER.match(self._text, self._at)
        if found is None:
            self._fail("want a name")
        self._at = found.end()
        return found[0]

    def _takes_word(self, word: str) -> bool:
        self._space()
        found = IDENTIFIER.match(self._text, self._at)
        if found is None or found[0] != word:
            return False
        self._at = found.end()
        return True
