"""HCL's native syntax, by recursive descent on the text itself (hclsyntax/spec.md)."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NoReturn

from pipeline.bake.hcl.nodes import (
    Attribute,
    Block,
    Body,
    Call,
    Condition,
    Expression,
    For,
    HclError,
    Index,
    Literal,
    Name,
    Object,
    Operation,
    Splat,
    Template,
    Tuple,
)

_IDENTIFIER = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BLANKS = re.compile(r"(?:[ \t\r]|(?:#|//)[^\n]*|/\*.*?\*/)+", re.DOTALL)
_SPACE = re.compile(r"(?:[ \t\r\n]|(?:#|//)[^\n]*|/\*.*?\*/)+", re.DOTALL)
_HEREDOC = re.compile(r"<<(-?)([^\W\d][\w-]*)[ \t\r]*\n")
_OPERATORS = (("||",), ("&&",), ("==", "!="), ("<=", ">=", "<", ">"), ("+", "-"), ("*", "/", "%"))
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_WORDS = {"true": True, "false": False, "null": None}
_DEPTH_LIMIT = 100
EACH = "*"  # the name of an item within a splat


def parse_hcl(text: str, name: str) -> Body:
    """The body of a file."""
    try:
        return Parser(text, name).file()
    except RecursionError:
        raise HclError(name, "nested too deep") from None


def parse_template(text: str, name: str) -> Expression:
    """A string that is a template though it stands in no quotes, as those of JSON are."""
    try:
        return Parser(text, name).whole_template()
    except RecursionError:
        raise HclError(name, "nested too deep") from None


class Parser:
    def __init__(self, text: str, name: str, line: int = 1) -> None:
        self._text, self._name, self._line = text, name, line
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._at = 0
        self._lines = False  # whether a line's end means something where we are
        self._depth = 0

    # --- the text -------------------------------------------------------------------------------------------------

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
        found = _IDENTIFIER.match(self._text, self._at)
        if found is None:
            self._fail("want a name")
        self._at = found.end()
        return found[0]

    def _takes_word(self, word: str) -> bool:
        self._space()
        found = _IDENTIFIER.match(self._text, self._at)
        if found is None or found[0] != word:
            return False
        self._at = found.end()
        return True

    # --- bodies ---------------------------------------------------------------------------------------------------

    def file(self) -> Body:
        body = self._body(end="")
        if self._at < len(self._text):
            self._fail("want an attribute or a block")
        return body

    def _body(self, end: str) -> Body:
        attributes: dict[str, Expression] = {}
        blocks: list[Block] = []
        self._lines = True
        self._skip_lines()
        while self._at < len(self._text) and not (end and self._text.startswith(end, self._at)):
            place, name = self._place(), self._identifier()
            if self._takes("="):
                if name in attributes:
                    raise HclError(place, f"{name!r} is set twice")
                attributes[name] = self.expression()
            else:
                blocks.append(self._block(name, place))
            self._space()
            if self._at < len(self._text) and self._text[self._at] != "\n" and not (end and self._sees(end)):
                self._fail("want the end of the line")
            self._skip_lines()
        return Body(attributes, tuple(blocks))

    def _block(self, kind: str, place: str) -> Block:
        labels = []
        while not self._takes("{"):
            labels.append(self._label() if self._sees('"') else self._identifier())
        body = self._body(end="}")
        self._need("}")
        return Block(kind, tuple(labels), body, place)

    def _label(self) -> str:
        found = self._quoted()
        if not isinstance(found, Literal):
            self._fail("a label is no template")
        return str(found.value)

    # --- expressions ----------------------------------------------------------------------------------------------

    def expression(self) -> Expression:
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            self._fail("nested too deep")
        place = self._place()
        test = self._binary(0)
        if self._takes("?"):
            then = self.expression()
            self._need(":")
            test = Condition(test, then, self.expression(), place)
        self._depth -= 1
        return test

    def _binary(self, level: int) -> Expression:
        if level == len(_OPERATORS):
            return self._unary()
        left = self._binary(level + 1)
        while True:
            self._space()
            place = self._place()
            operator = next((each for each in _OPERATORS[level] if self._sees(each)), "")
            if not operator or (operator in "<>" and self._sees(operator + "=")):
                return left
            self._at += len(operator)
            left = Operation(operator, left, self._binary(level + 1), place)

    def _unary(self) -> Expression:
        place = self._place()
        if self._sees("!") and not self._sees("!="):
            self._at += 1
            return Operation("!", self._unary(), None, place)
        if self._takes("-"):
            return Operation("-", self._unary(), None, place)
        return self._postfix(self._primary())

    def _primary(self) -> Expression:
        self._space()
        place = self._place()
        if found := _NUMBER.match(self._text, self._at):
            self._at = found.end()
            return Literal(_number(found[0]))
        if self._sees('"'):
            return self._quoted()
        if found := _HEREDOC.match(self._text, self._at):
            return self._heredoc(found)
        if self._takes("("):
            inner = self._enclosed()
            self._need(")")
            return inner
        if self._takes("["):
            return self._tuple(place)
        if self._takes("{"):
            return self._object(place)
        name = self._identifier()
        if self._text.startswith("(", self._at):
            self._at += 1
            return self._call(name, place)
        return Literal(_WORDS[name]) if name in _WORDS else Name(name, place)

    def _enclosed(self) -> Expression:
        """Within brackets a line's end means nothing."""
        lines, self._lines = self._lines, False
        found = self.expression()
        self._space()
        self._lines = lines
        return found

    def _postfix(self, of: Expression) -> Expression:
        while True:
            place = self._place()
            if self._text.startswith("...", self._at):
                return of
            if self._text.startswith("[*]", self._at):
                self._at += 3
                return Splat(of, self._postfix(Name(EACH, place)))
            if self._text.startswith(".*", self._at):
                self._at += 2
                of = Splat(of, self._attributes(Name(EACH, place)))
            elif self._text.startswith("[", self._at):
                self._at += 1
                key = self._enclosed()
                self._need("]")
                of = Index(of, key, place)
            elif self._text.startswith(".", self._at):
                self._at += 1
                of = self._attribute(of, place)
            else:
                return of

    def _attribute(self, of: Expression, place: str) -> Expression:
        if found := re.compile(r"\d+").match(self._text, self._at):
            self._at = found.end()
            return Index(of, Literal(int(found[0])), place)
        return Attribute(of, self._identifier(), place)

    def _attributes(self, of: Expression) -> Expression:
        """Behind `.*` only attributes belong to each item."""
        while self._text.startswith(".", self._at) and not self._text.startswith(".*", self._at):
            place = self._place()
            self._at += 1
            of = self._attribute(of, place)
        return of

    def _call(self, name: str, place: str) -> Expression:
        arguments: list[Expression] = []
        spread = False
        lines, self._lines = self._lines, False
        while not self._sees(")"):
            arguments.append(self.expression())
            if self._takes("..."):
                spread = True
            elif self._takes(","):
                continue
            break
        self._need(")")
        self._lines = lines
        return Call(name, tuple(arguments), spread, place)

    def _tuple(self, place: str) -> Expression:
        lines, self._lines = self._lines, False
        found: Expression
        if self._takes_word("for"):
            found = self._for(place, closing="]")
        else:
            items = []
            while not self._sees("]"):
                items.append(self.expression())
                if not self._takes(","):
                    break
            self._need("]")
            found = Tuple(tuple(items))
        self._lines = lines
        return found

    def _object(self, place: str) -> Expression:
        lines, self._lines = self._lines, False
        found: Expression
        if self._takes_word("for"):
            found = self._for(place, closing="}")
        else:
            items = []
            while not self._sees("}"):
                key = self._key()
                if not (self._takes("=") or self._takes(":")):
                    self._fail("want '=' behind a key")
                self._lines = True
                items.append((key, self.expression()))
                if not (self._takes(",") or self._sees("\n") or self._sees("}")):
                    self._fail("want ',' or the end of the line")
                self._lines = False
            self._need("}")
            found = Object(tuple(items), place)
        self._lines = lines
        return found

    def _key(self) -> Expression:
        """A name alone is text; in parentheses it is a variable."""
        self._space()
        start = self._at
        found = _IDENTIFIER.match(self._text, start)
        if found is not None:
            self._at = found.end()
            if self._sees("=") or self._sees(":"):
                return Literal(found[0])
            self._at = start
        return self.expression()

    def _for(self, place: str, closing: str) -> Expression:
        key, name = "", self._identifier()
        if self._takes(","):
            key, name = name, self._identifier()
        if not self._takes_word("in"):
            self._fail("want 'in'")
        of = self.expression()
        self._need(":")
        to, value = None, self.expression()
        if closing == "}":
            self._need("=>")
            to, value = value, self.expression()
        grouped = self._takes("...")
        test = self.expression() if self._takes_word("if") else None
        self._need(closing)
        return For(key, name, of, value, to, test, grouped, False, place)

    # --- templates ------------------------------------------------------------------------------------------------

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
        return _template(Parser(body, self._name, line)._parts("", escapes=False), place)

    def _parts(self, end: str, escapes: bool = True, stops: tuple[str, ...] = ()) -> list[Expression]:
        """Text and values up to `end`, or to a directive that is one of `stops` and has been read by then."""
        escapes = escapes and end == '"'
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
                    found = self._directive(end, escapes, stops)
                    if found is None:
                        return parts
                    parts.append(found[0])
                    trim = found[1]
                if trim:
                    self._skip_lines_of_text()
            elif letter == "\\" and escapes:
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

    def _directive(self, end: str, escapes: bool, stops: tuple[str, ...]) -> tuple[Expression, bool] | None:
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
            then = self._parts_to(end, escapes, ("else", "endif"))
            otherwise: Expression = Literal("")
            if self._stopped == "else":
                otherwise = self._parts_to(end, escapes, ("endif",))
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
            value = self._parts_to(end, escapes, ("endfor",))
            self._lines = lines
            return For(key, name, of, value, None, None, False, True, place), False
        self._fail(f"{word!r} is no directive of a template; want if or for")

    _stopped = ""

    def _parts_to(self, end: str, escapes: bool, stops: tuple[str, ...]) -> Expression:
        place = self._place()
        parts = self._until(end, escapes, stops)
        return Template((*parts, Literal("")), place)

    def _until(self, end: str, escapes: bool, stops: tuple[str, ...]) -> list[Expression]:
        return self._parts(end if end == '"' else "", escapes, stops)

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


def _number(text: str) -> int | float:
    value = float(text)
    return int(text) if text.isdigit() else int(value) if value.is_integer() else value


def _without_indentation(text: str) -> str:
    lines = text.split("\n")
    depths = [len(line) - len(line.lstrip(" \t")) for line in lines if line.strip(" \t\r")]
    least = min(depths, default=0)
    return "\n".join(line[least:] for line in lines)
