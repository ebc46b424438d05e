"""HCL's native syntax, by recursive descent on the text itself (hclsyntax/spec.md)."""

from __future__ import annotations

import re

from pipeline.bake.hcl.cursor import IDENTIFIER
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
    Tuple,
)
from pipeline.bake.hcl.templates import HEREDOC, Templates

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_OPERATORS = (("||",), ("&&",), ("==", "!="), ("<=", ">=", "<", ">"), ("+", "-"), ("*", "/", "%"))
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


class Parser(Templates):
    """Bodies and expressions."""

    _depth = 0

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
            number = _number(found[0])
            if number == float("inf"):
                self._fail("want a number that is not so large")
            self._at = found.end()
            return Literal(number)
        if self._sees('"'):
            return self._quoted()
        if found := HEREDOC.match(self._text, self._at):
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
        found = IDENTIFIER.match(self._text, start)
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


def _number(text: str) -> int | float:
    value = float(text)
    return int(text) if text.isdigit() else int(value) if value.is_integer() else value
