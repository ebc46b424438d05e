"""Tables of flags, and the reader of command lines that goes by them.

Commands that are to start quickly (`pipe run`, `pipe build`) do without click, whose import alone is 15 ms: their flags
are a table, and this reads it as docker's own command line does (pflag): `--name value`, `--name=value`, `-n value`,
`-nvalue`, `-n=value`, switches in one word (`-it`), `--switch=false`. Values stay strings; what they mean is others'
business. Imports nothing but our errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from registry_client.tuples import NamedTuple
from runtime.errors import InvalidInput, did_you_mean


class Flag(NamedTuple):
    name: str
    kind: str  # switch, one, many, number, refused
    help: str
    short: str = ""
    metavar: str = "VALUE"
    choices: tuple[str, ...] = ()


Take = Callable[[Flag, str], None]  # the value of a switch is "true" or "false"


class Flags:
    """A table by name and by letter. `command` is who knows more, for hints; `aliases` are further names of flags."""

    def __init__(self, command: str, table: Iterable[Flag], aliases: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._by_name = {flag.name: flag for flag in table}
        self._by_short = {flag.short: flag for flag in self._by_name.values() if flag.short}
        for alias, name in (aliases or {}).items():
            self._by_name[alias] = self._by_name[name]

    def read(self, arguments: Sequence[str], take: Take, *, mixed: bool) -> tuple[str, ...]:
        """Hand each flag to `take`, and return the other words: all from the first on, unless flags may be `mixed` in."""
        rest: list[str] = []
        words = list(reversed(arguments))
        while words:
            word = words.pop()
            if word == "--":
                break
            if word.startswith("--"):
                self._long(word[2:], words, take)
            elif word.startswith("-") and word != "-":
                self._short(word[1:], words, take)
            else:
                rest.append(word)
                if not mixed:
                    break
        return (*rest, *reversed(words))

    def _long(self, text: str, words: list[str], take: Take) -> None:
        name, equals, value = text.partition("=")
        flag = self._by_name.get(name)
        if flag is None:
            near = did_you_mean(name, self._by_name).replace("`", "`--", 1)
            raise InvalidInput(f"unknown flag --{name}", hint=near or f"see `{self._command} --help`")
        if flag.kind == "refused":
            raise InvalidInput(f"--{name} cannot be used: {flag.help}", hint="leave it out")
        if flag.kind == "switch":
            take(flag, _truth(name, value) if equals else "true")
        else:
            take(flag, value if equals else _next(f"--{name}", words))

    def _short(self, text: str, words: list[str], take: Take) -> None:
        """`-it`, `-p80:80`, `-e=A=1`, `-itv /a:/b`."""
        while text:
            letter, text = text[0], text[1:]
            flag = self._by_short.get(letter)
            if flag is None:
                raise InvalidInput(f"unknown flag -{letter}", hint=f"see `{self._command} --help`")
            if flag.kind != "switch":
                take(flag, text.removeprefix("=") if text else _next(f"-{letter}", words))
                return
            if text.startswith("="):
                take(flag, _truth(letter, text[1:]))
                return
            take(flag, "true")


def _next(flag: str, words: list[str]) -> str:
    if not words:
        raise InvalidInput(f"{flag} needs a value")
    return words.pop()


def _truth(name: str, text: str) -> str:
    if text.lower() in ("1", "t", "true"):
        return "true"
    if text.lower() in ("0", "f", "false"):
        return "false"
    raise InvalidInput(f"--{name}={text} is neither true nor false")
