"""Files of variables: `.env` and `env_file:` (Compose's dotenv dialect). Pure."""

from __future__ import annotations

import re

from runtime.errors import InvalidInput
from runtime.spans import Source, Span

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:[=:]\s*(.*))?", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse_dotenv(text: str, name: str, *, raw: bool = False) -> dict[str, str]:
    """Names and values. Quotes are taken off, a `#` after a blank starts a comment; `raw` keeps all after the `=`."""
    found: dict[str, str] = {}
    source = Source(name, text)
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise InvalidInput(
                f"cannot read {line.strip()[:40]!r}", Span(source, number), hint="write `NAME=value`"
            )
        variable, value = match[1], match[2]
        if value is None:
            continue  # a bare name: from outside, where it is set already
        if not raw and value[:1] in ("'", '"'):
            value = _quoted(value, lines, source, number)
        elif not raw:
            value = re.split(r"\s+#", value, maxsplit=1)[0].strip()
        found[variable] = value
    return found


def _quoted(value: str, lines: object, source: Source, number: int) -> str:
    quote = value[0]
    while (end := _end_of(value, quote)) < 0:
        following = next(lines, None)  # type: ignore[call-overload]
        if following is None:
            raise InvalidInput(f"a {quote} is never closed", Span(source, number))
        value += "\n" + following[1]
    inner = value[1:end]
    if quote == "'":
        return inner
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), inner)


def _end_of(value: str, quote: str) -> int:
    at = 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 2
            continue
        if value[at] == quote:
            return at
        at += 1
    return -1
