"""HCL's templates: text with `${values}` and `%{ directives }` in it, in quotes or in here documents (hclsyntax/spec.md, "Templates")."""

from __future__ import annotations

import re

from pipeline.bake.hcl.cursor import Cursor
from pipeline.bake.hcl.nodes import Condition, Expression, For, Literal, Template

HEREDOC = re.compile(r"<<(-?)([^\W\d][\w-]*)[ \t\r]*\n")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


class Templates(Cursor):
    """The half of the parser that reads them; expressions within are the other half's."""

    _stopped = ""  # the directive that ended the last `_parts`

    def expression(self) -> Expression:
        raise NotImplementedError

    def _quoted(self) -> Expression:
        place = self._place()
        self._need('"')
        parts = self._parts('"')
        self._at += 1
        return _template(parts, place)

    def whole_template(self) -> Expression:
        return _template(self._parts(""), self._place())

    def _heredoc(self, start: re.Match[str]) -> Expression:
        """`<<-` takes off the indentation all lines share; backslashes are text in either."""
        place, line = self._place(), self._line + self._text.count("\n", 0, start.end())
        end = re.compile(rf"^[ \t]*{re.escape(start[2])}[ \t\r]*$", re.MULTILINE).search(
            self._text, start.end()
        )
        if end is None:
            self._fail(f"no line {start[2]!r} ends the text that begins with")
        body = self._text[start.end() : end.start()]
        if start[1]:
            body = _without_indentation(body)
        self._at = end.end()
        return _template(type(self)(body, self._name, line)._parts(""), place)

    def _parts(self, end: str, stops: tuple[str, ...] = ()) -> list[Expression]:
        """Text and values up to `end`, or to a directive that is one of `stops` and has been read by then."""
        parts: list[Expression] = []
        text: list[str] = []

        def flush() -> None:
            if text:
                parts.append(Literal("".join(text)))
                text.clear()

        trim = False
        while True:
            if self._at >= len(self._text):
                if end or stops:
                    self._fail(f"want {end or stops[0]!r}")
                break
            if end and self._text.startswith(end, self._at):
                if stops:
                    self._fail(f"want %{{ {stops[-1]} }}")
                break
            letter = self._text[self._at]
            if letter == "\n" and end == '"':
                self._fail("want '\"' before the line ends")
            if self._text.startswith(("$${", "%%{"), self._at):
                text.append(letter + "{")
                self._at += 3
            elif self._text.startswith(("${", "%{"), self._at):
                self._at += 2
                if self._text.startswith("~", self._at):
                    self._at += 1
                    _trim_end(text)
                flush()
                if letter == "$":
                    part, trim = self._interpolated()
                    parts.append(part)
                else:
                    found = self._directive(end, stops)
                    if found is None:
                        return parts
                    parts.append(found[0])
                    trim = found[1]
                if trim:
                    self._skip_lines_of_text()
            elif letter == "\\" and end:
                text.append(self._escape())
            else:
                text.append(letter)
                self._at += 1
        flush()
        return parts

    def _skip_lines_of_text(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
            self._at += 1

    def _interpolated(self) -> tuple[Expression, bool]:
        lines, self._lines = self._lines, False
        value = self.expression()
        trim = self._takes("~")
        self._need("}")
        self._lines = lines
        return value, trim

    def _closed(self) -> bool:
        """The end of a directive; whether it takes the blanks behind it away."""
        trim = self._takes("~")
        self._need("}")
        if trim:
            self._skip_lines_of_text()
        return trim

    def _directive(self, end: str, stops: tuple[str, ...]) -> tuple[Expression, bool] | None:
        place = self._place()
        lines, self._lines = self._lines, False
        word = self._identifier()
        if word in stops:
            self._stopped = word
            self._closed()
            self._lines = lines
            return None
        if word == "if":
            test = self.expression()
            self._closed()
            then = self._parts_to(end, ("else", "endif"))
            otherwise: Expression = Literal("")
            if self._stopped == "else":
                otherwise = self._parts_to(end, ("endif",))
            self._lines = lines
            return Template((Condition(test, then, otherwise, place), Literal("")), place), False
        if word == "for":
            key, name = "", self._identifier()
            if self._takes(","):
                key, name = name, self._identifier()
            if not self._takes_word("in"):
                self._fail("want 'in'")
            of = self.expression()
            self._closed()
            value = self._parts_to(end, ("endfor",))
            self._lines = lines
            return For(key, name, of, value, None, None, False, True, place), False
        self._fail(f"{word!r} is no directive of a template; want if or for")

    def _parts_to(self, end: str, stops: tuple[str, ...]) -> Expression:
        place = self._place()
        parts = self._parts(end, stops)
        return Template((*parts, Literal("")), place)

    def _escape(self) -> str:
        letter = self._text[self._at + 1 : self._at + 2]
        if letter in _ESCAPES:
            self._at += 2
            return _ESCAPES[letter]
        size = {"u": 4, "U": 8}.get(letter, 0)
        digits = self._text[self._at + 2 : self._at + 2 + size]
        if (
            not size
            or not re.fullmatch("[0-9a-fA-F]+", digits)
            or len(digits) < size
            or int(digits, 16) > 0x10FFFF
        ):
            self._fail('want an escape sequence (\\n, \\r, \\t, \\", \\\\, \\uNNNN)')
        self._at += 2 + size
        return chr(int(digits, 16))


def _template(parts: list[Expression], place: str) -> Expression:
    if not parts:
        return Literal("")
    if len(parts) == 1 and isinstance(parts[0], Literal) and isinstance(parts[0].value, str):
        return parts[0]
    return Template(tuple(parts), place)


def _trim_end(text: list[str]) -> None:
    joined = "".join(text).rstrip(" \t\r\n")
    text[:] = [joined] if joined else []


def _without_indentation(text: str) -> str:
    lines = text.split("\n")
    depths = [len(line) - len(line.lstrip(" \t")) for line in lines if line.strip(" \t\r")]
    least = min(depths, default=0)
    return "\n".join(line[least:] for line in lines)
