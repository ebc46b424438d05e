"""`${NAME:-default}` in values (Compose F-3) and the contexts `git.*`, `matrix.*`, `images.*`, `stages.*`.

A text is expanded once, when the file is read. What is known only later (a matrix value, a digest, another stage's
output) is left in it as a *placeholder* between two private characters, and filled in by `fill` when its stage is planned
or started. So `$$` stays literal, nothing is expanded twice, and a value can never turn into an expression.

Scripts are different: they are never rewritten with values. `script_variables` turns a context there into the name
of an environment variable, because a branch called `$(reboot)` must stay a branch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from registry_client.values import frozen
from runtime.errors import InvalidInput, did_you_mean
from runtime.spans import Span

CONTEXTS = ("git", "env", "matrix", "images", "stages", "pipe")
LATER = frozenset(("matrix", "images", "stages"))  # filled in by `fill`
OPEN, CLOSE, SEPARATOR = "\ue000", "\ue001", "\ue002"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_-]+)*")
_OPERATOR = re.compile(r":?[-+?]")
_PLACEHOLDER = re.compile(
    f"{OPEN}([^{OPEN}{CLOSE}{SEPARATOR}]*){SEPARATOR}([^{OPEN}{CLOSE}{SEPARATOR}]*){SEPARATOR}([^{OPEN}{CLOSE}]*){CLOSE}"
)
_SCRIPT = re.compile(r"(?<!\\)\$\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_-]+)+)")
_NESTING = 16

Lookup = Callable[
    [str], str | None
]  # a variable or dotted path -> its value, None when unset; raises KeyError when unknown


@frozen
class Unset:
    """A variable that was not set and had no default: empty, and worth a warning."""

    name: str
    span: Span


def expand(text: str, lookup: Lookup, span: Span, unset: list[Unset]) -> str:
    """`text` with its variables replaced; raises InvalidInput with the position of a broken or unknown one."""
    if any(mark in text for mark in (OPEN, CLOSE, SEPARATOR)):
        raise InvalidInput("a private-use character (U+E000…U+E002) in a value", span)
    if "$" not in text:
        return text
    return _Expander(lookup, span, unset).run(text, 0)


class _Expander:
    def __init__(self, lookup: Lookup, span: Span, unset: list[Unset]) -> None:
        self.lookup, self.span, self.unset = lookup, span, unset

    def run(self, text: str, depth: int) -> str:
        if depth > _NESTING:
            raise InvalidInput("variables nested too deeply", self.span)
        out: list[str] = []
        at = 0
        while (dollar := text.find("$", at)) >= 0:
            out.append(text[at:dollar])
            value, at = self._variable(text, dollar + 1, depth)
            out.append(value)
        return "".join(out) + text[at:]

    def _variable(self, text: str, at: int, depth: int) -> tuple[str, int]:
        if text.startswith("$", at):
            return "$", at + 1
        if text.startswith("{", at):
            return self._braced(text, at + 1, depth)
        match = _NAME.match(text, at)
        if match is None:
            raise InvalidInput(
                f"a lone `$` in {_short(text)!r}", self.span, hint="write `$$` for a literal dollar sign"
            )
        return self._value(match[0], "", "", depth), match.end()

    def _braced(self, text: str, at: int, depth: int) -> tuple[str, int]:
        match = _PATH.match(text, at)
        if match is None:
            raise InvalidInput(
                f"a `${{` without a name in {_short(text)!r}",
                self.span,
                hint="write `$${` to mean it literally",
            )
        name, at = match[0], match.end()
        operator = _OPERATOR.match(text, at)
        if operator is not None:
            end = _closing(text, operator.end())
            if end < 0:
                raise self._unclosed(text)
            return self._value(name, operator[0], text[operator.end() : end], depth), end + 1
        if not text.startswith("}", at):
            if "}" not in text[at:]:
                raise self._unclosed(text)
            wrong = text[at : text.index("}", at)]
            raise InvalidInput(
                f"`{wrong}` after `{name}` in {_short(text)!r}",
                self.span,
                hint="operators are `:-` `-` `:?` `?` `:+` `+`",
            )
        return self._value(name, "", "", depth), at + 1

    def _unclosed(self, text: str) -> InvalidInput:
        return InvalidInput(f"`${{` is never closed in {_short(text)!r}", self.span)

    def _value(self, name: str, operator: str, word: str, depth: int) -> str:
        context = name.partition(".")[0]
        if "." in name and context in LATER:
            self._ask(name)
            return f"{OPEN}{name}{SEPARATOR}{operator}{SEPARATOR}{self.run(word, depth + 1)}{CLOSE}"
        value = self._ask(name)
        return self._operate(name, value, operator, word, lambda text: self.run(text, depth + 1))

    def _ask(self, name: str) -> str | None:
        try:
            return self.lookup(name)
        except KeyError as error:
            raise InvalidInput(
                f"unknown context in `${{{name}}}`", self.span, hint=str(error.args[0])
            ) from error

    def _operate(
        self, name: str, value: str | None, operator: str, word: str, expand_word: Callable[[str], str]
    ) -> str:
        if value is None and operator == "":
            self.unset.append(Unset(name, self.span))
        return operate(name, value, operator, word, self.span, expand_word)


def operate(
    name: str,
    value: str | None,
    operator: str,
    word: str,
    span: Span | None,
    expand_word: Callable[[str], str] = str,
) -> str:
    """POSIX's parameter expansion: with a colon the empty value counts as unset (XCU 2.6.2)."""
    unset = value is None or (operator.startswith(":") and value == "")
    match operator.removeprefix(":"):
        case "-":
            return expand_word(word) if unset else value or ""
        case "+":
            return "" if unset else expand_word(word)
        case "?" if unset:
            raise InvalidInput(f"`{name}` is not set: {expand_word(word) or 'it is required'}", span)
        case _:
            return value or ""


def _closing(text: str, at: int) -> int:
    """The `}` that ends the word starting at `at`; words nest."""
    depth = 1
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
            continue
        if text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return -1


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


def has_placeholder(text: str) -> bool:
    return OPEN in text


def placeholders(text: str) -> list[str]:
    """The dotted paths a text still waits for."""
    found: list[str] = []
    while OPEN in text:
        matches = _PLACEHOLDER.findall(text)
        found.extend(name for name, _, _ in matches)
        text = _PLACEHOLDER.sub("", text)
    return found


def fill(text: str, lookup: Lookup, span: Span | None = None) -> str:
    """Replace the placeholders `lookup` knows (KeyError: not yet, it stays); innermost first."""
    if OPEN not in text:
        return text
    kept: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        try:
            value = lookup(name)
        except KeyError:
            kept.append(match[0])
            return f"\ue003{len(kept) - 1}\ue004"
        return operate(name, value, operator, word, span)

    while OPEN in text:
        text = _PLACEHOLDER.sub(replace, text)
    while "\ue003" in text:
        text = re.sub("\ue003(\\d+)\ue004", lambda match: kept[int(match[1])], text)
    return text


def variable_name(path: str) -> str:
    """The environment variable that carries a context into a script: `git.branch` is PIPE_GIT_BRANCH."""
    return path[4:] if path.startswith("env.") else "PIPE_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper()


def script_variables(script: str, span: Span, check: Lookup) -> tuple[str, tuple[str, ...]]:
    """A script with its contexts turned into variables, and the paths those variables must carry."""
    used: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        path = match[1]
        if path.partition(".")[0] not in CONTEXTS:
            return match[0]  # somebody else's template, a JavaScript literal in a `node -e`
        try:
            check(path)
        except KeyError as error:
            raise InvalidInput(f"unknown context in `${{{path}}}`", span, hint=str(error.args[0])) from error
        name = variable_name(path)
        if used.setdefault(name, path) != path:
            raise InvalidInput(f"`{path}` and `{used[name]}` would share the variable {name}", span)
        return "${" + name

    return _SCRIPT.sub(rename, script), tuple(used.values())


def unknown_context(name: str, known: Iterable[str] = CONTEXTS) -> KeyError:
    """What a lookup raises for a path it has never heard of: the argument is the hint."""
    known = list(known)
    return KeyError(did_you_mean(name, known) or "known are " + ", ".join(f"`{word}`" for word in known))
