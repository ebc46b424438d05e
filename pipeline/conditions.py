"""When a node belongs to a run: `when:` (a mapping, all of it must hold; a list, one of them) and `if:` (an expression).

Pure. Facts come in as a lookup and a list of changed files; nothing here asks git. Without a base to compare with, the
changed files are unknown, and `changes` then holds *with that reason* rather than silently (FEATURES G-14).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from registry_client.values import field, frozen
from runtime.errors import InvalidInput
from runtime.spans import Span

Lookup = Callable[[str], str | None]


@frozen
class Facts:
    """What conditions are decided on. `changed` is None while unknown; `exists` answers for a glob in the work tree."""

    lookup: Lookup
    changed: tuple[str, ...] | None = None
    exists: Callable[[str], bool] = lambda pattern: False


@frozen
class Verdict:
    """`reason` is a sentence part for `pipe plan --why`."""

    holds: bool
    reason: str = ""


@frozen(kw_only=True)
class Clause:
    """One mapping under `when:`; the empty one always holds."""

    branch: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    exists: tuple[str, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()


@frozen
class Condition:
    clauses: tuple[Clause, ...] = ()
    expression: Expression | None = None

    def decide(self, facts: Facts) -> Verdict:
        verdict = _any_clause(self.clauses, facts)
        if not verdict.holds or self.expression is None:
            return verdict
        value = self.expression.value(facts.lookup)
        shown = f"`if: {self.expression.text}` is {'true' if truth(value) else 'false'}"
        return Verdict(truth(value), "; ".join(part for part in (verdict.reason, shown) if part))

    @property
    def runtime_paths(self) -> tuple[str, ...]:
        """Paths in `if:` that only the run knows."""
        names = self.expression.names() if self.expression else ()
        return tuple(name for name in names if name.startswith(("stages.", "images.")))


def _any_clause(clauses: tuple[Clause, ...], facts: Facts) -> Verdict:
    verdicts = [_decide(clause, facts) for clause in clauses]
    if not verdicts:
        return Verdict(True)
    return next((verdict for verdict in verdicts if verdict.holds), verdicts[-1])


def _decide(clause: Clause, facts: Facts) -> Verdict:
    reasons: list[str] = []
    for name, patterns in (("branch", clause.branch), ("tag", clause.tag)):
        if patterns:
            value = facts.lookup(f"git.{name}") or ""
            shown = f"{name} is {value!r}" if value else f"there is no {name}"
            if not _matches_any(value, patterns):
                return Verdict(False, f"{shown}, wanted {' or '.join(patterns)}")
            reasons.append(shown)
    if clause.changes:
        verdict = _changes(clause.changes, facts.changed)
        if not verdict.holds:
            return verdict
        reasons.append(verdict.reason)
    for pattern in clause.exists:
        if not facts.exists(pattern):
            return Verdict(False, f"no file matches {pattern}")
        reasons.append(f"{pattern} exists")
    for name, wanted in clause.env:
        value = facts.lookup(f"env.{name}") or ""
        if not (value if wanted is None else _matches_any(value, (wanted,))):
            return Verdict(False, f"{name} is {value!r}, wanted {'any value' if wanted is None else wanted}")
        reasons.append(f"{name} is {value!r}")
    return Verdict(True, ", ".join(reasons))


def _changes(patterns: tuple[str, ...], changed: tuple[str, ...] | None) -> Verdict:
    if changed is None:
        return Verdict(True, "changed files are unknown: no commit to compare with")
    hit = next((path for path in changed if any(path_matches(path, pattern) for pattern in patterns)), None)
    if hit is None:
        return Verdict(False, f"no changed file matches {' or '.join(patterns)}")
    return Verdict(True, f"{hit} changed")


def _matches_any(value: str, patterns: tuple[str, ...]) -> bool:
    """Globs; `true` is any value, `!pattern` takes matches away."""
    positive = [pattern for pattern in patterns if not pattern.startswith("!")]
    wanted = any(
        bool(value)
        if pattern == "true"
        else not value
        if pattern == "false"
        else fnmatch.fnmatchcase(value, pattern)
        for pattern in positive
    )
    refused = any(fnmatch.fnmatchcase(value, pattern[1:]) for pattern in patterns if pattern.startswith("!"))
    return (wanted or not positive) and not refused


def path_matches(path: str, pattern: str) -> bool:
    """A glob where `*` stays in its directory, `**` crosses directories, and a directory matches all below it."""
    pattern = pattern.removeprefix("./").rstrip("/")
    expression = (
        re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    )
    return re.fullmatch(expression.replace(r"\?", "[^/]") + "(?:/.*)?", path) is not None


ALWAYS = Condition()
_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_-]+)*)|(?P<string>\"[^\"]*\"|'[^']*')|(?P<number>\d+(?:\.\d+)*)"
    r"|(?P<operator>==|!=|=~|!~|&&|\|\||!|\(|\)))"
)


@frozen
class Expression:
    """A parsed `if:`. Values are texts; unset is empty; empty and `false` are false."""

    text: str
    span: Span
    tree: object = field(compare=False, default=None)

    def value(self, lookup: Lookup) -> str:
        return _value(self.tree, lookup, self.span)

    def names(self) -> tuple[str, ...]:
        return tuple(_names(self.tree))


def truth(value: str) -> bool:
    return value not in ("", "false")


def parse_expression(text: str, span: Span) -> Expression:
    """Parse `git.branch == "main" && env.CI`; InvalidInput says what was not understood."""
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            hint = "texts stand in quotes; operators are == != =~ !~ && || ! ( )"
            raise InvalidInput(f"cannot read {text[at:].strip()[:20]!r} in `if`", span, hint=hint)
        kind = match.lastgroup or ""
        tokens.append((kind, match[kind]))
        at = match.end()
    parser = _Parser(tokens, text, span)
    return Expression(text.strip(), span, parser.whole())


class _Parser:
    """Precedence, weakest first: `||`, `&&`, comparison, `!`."""

    def __init__(self, tokens: list[tuple[str, str]], text: str, span: Span) -> None:
        self.tokens, self.text, self.span, self.at, self.depth = tokens, text, span, 0, 0

    def whole(self) -> object:
        tree = self.either()
        if self.at < len(self.tokens):
            raise InvalidInput(
                f"unexpected `{self.tokens[self.at][1]}` in `if: {self.text.strip()}`", self.span
            )
        return tree

    def take(self, *operators: str) -> str:
        if (
            self.at < len(self.tokens)
            and self.tokens[self.at][1] in operators
            and self.tokens[self.at][0] == "operator"
        ):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def either(self) -> object:
        tree = self.both()
        while self.take("||"):
            tree = ("||", tree, self.both())
        return tree

    def both(self) -> object:
        tree = self.comparison()
        while self.take("&&"):
            tree = ("&&", tree, self.comparison())
        return tree

    def comparison(self) -> object:
        tree = self.operand()
        operator = self.take("==", "!=", "=~", "!~")
        if not operator:
            return tree
        right = self.operand()
        if operator in ("=~", "!~"):
            self._check_pattern(right)
        return (operator, tree, right)

    def _check_pattern(self, tree: object) -> None:
        if not (isinstance(tree, tuple) and tree[0] == "text"):
            raise InvalidInput("the right side of `=~` is a pattern in quotes", self.span)
        try:
            re.compile(tree[1])
        except re.error as error:
            raise InvalidInput(f"invalid pattern {tree[1]!r}: {error}", self.span) from error

    def operand(self) -> object:
        self.depth += 1
        if self.depth > 100:
            raise InvalidInput("`if` is nested too deeply", self.span)
        try:
            if self.take("!"):
                return ("!", self.operand())
            if self.take("("):
                tree = self.either()
                if not self.take(")"):
                    raise InvalidInput(f"a `(` is never closed in `if: {self.text.strip()}`", self.span)
                return tree
            return self._leaf()
        finally:
            self.depth -= 1

    def _leaf(self) -> object:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] == "operator":
            found = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
            raise InvalidInput(f"expected a value, found `{found}` in `if: {self.text.strip()}`", self.span)
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "string":
            return ("text", text[1:-1])
        if kind == "number" or text in ("true", "false"):
            return ("text", "" if text == "false" else text)
        return ("name", text)


def _value(tree: object, lookup: Lookup, span: Span) -> str:
    match tree:
        case ("text", str(text)):
            return text
        case ("name", str(name)):
            return lookup(name) or ""
        case ("!", inner):
            return "" if truth(_value(inner, lookup, span)) else "true"
        case ("&&", left, right):
            value = _value(left, lookup, span)
            return _value(right, lookup, span) if truth(value) else ""
        case ("||", left, right):
            value = _value(left, lookup, span)
            return value if truth(value) else _value(right, lookup, span)
        case (str(operator), left, right):
            return _compare(operator, _value(left, lookup, span), _value(right, lookup, span))
        case _:
            raise AssertionError(tree)


def _compare(operator: str, left: str, right: str) -> str:
    if operator in ("==", "!="):
        same = left == right
    else:
        same = re.search(right, left[:4096]) is not None
    return "true" if same == (operator in ("==", "=~")) else ""


def _names(tree: object) -> list[str]:
    if not isinstance(tree, tuple) or tree[0] == "text":
        return []
    if tree[0] == "name":
        return [tree[1]]
    return [name for child in tree[1:] for name in _names(child)]
