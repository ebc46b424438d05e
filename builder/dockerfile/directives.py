"""Parser directives: `# syntax=`, `# escape=`, `# check=` at the very top (FEATURES A-16 … A-19)."""

from __future__ import annotations

import json
import re

from builder.dockerfile.errors import DockerfileError
from registry_client.tuples import NamedTuple
from runtime.spans import Source, Span

KNOWN = ("syntax", "escape", "check")
_DIRECTIVE = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")


class Directive(NamedTuple):
    name: str
    value: str
    span: Span


class Directives(NamedTuple):
    """What the top of the file says. `syntax` is recorded, never pulled or run."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""
    found: tuple[Directive, ...] = ()

    def span_of(self, name: str) -> Span | None:
        return next((directive.span for directive in self.found if directive.name == name), None)


def parse_directives(lines: list[str], source: Source) -> Directives:
    """The directives of a file. The first line that is not one ends the search for good."""
    found: dict[str, Directive] = {}
    for number, line in enumerate(lines, start=1):
        text = line.lstrip()
        match = _DIRECTIVE.fullmatch(text[1:]) if text.startswith("#") else None
        if match is None or (name := match[1].lower()) not in KNOWN:
            break
        span = Span(source, number, len(line) - len(text) + 1)
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", span)
        found[name] = Directive(name, match[2], span)
    escape = found.get("escape")
    if escape and escape.value not in ("\\", "`"):
        raise DockerfileError(
            f"invalid escape token {escape.value!r}", escape.span, hint="only \\ and ` can be escape tokens"
        )
    return Directives(
        found["syntax"].value if "syntax" in found else "",
        escape.value if escape else "\\",
        found["check"].value if "check" in found else "",
        tuple(found.values()),
    )


def detect_syntax(text: str) -> str:
    """The front end a file asks for: also after a `#!` line, with `//` comments, or as a key of a JSON document (A-17)."""
    text = text.removeprefix("\ufeff")
    if text.startswith("#!"):
        text = text.partition("\n")[2]
    for mark in ("#", "//"):
        for line in text.split("\n"):
            match = (
                _DIRECTIVE.fullmatch(line.removeprefix(mark).rstrip("\r")) if line.startswith(mark) else None
            )
            if match is None or match[1].lower() not in KNOWN:
                break
            if match[1].lower() == "syntax":
                return match[2].split(" ")[0]
    return _syntax_of_json(text)


def _syntax_of_json(text: str) -> str:
    if not text.lstrip().startswith("{"):
        return ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    syntax = document.get("syntax")
    return syntax if isinstance(syntax, str) else ""
