"""One record of comma separated values, as flags and `--mount` take them: `type=bind,"src=/a,b"` (RFC 4180)."""

from __future__ import annotations

import re

from runtime.errors import InvalidInput

_FIELD = re.compile(r'(?:\A|,)(?:"((?:[^"]|"")*)"|([^",]*))(?=,|\Z)')


def split_fields(text: str) -> list[str] | None:
    """The fields without their quotes; None where a quote stands in the middle of a field or is not closed."""
    matches = list(_FIELD.finditer(text))
    if sum(len(match.group()) for match in matches) != len(text):
        return None
    return [match[2] if match[1] is None else match[1].replace('""', '"') for match in matches]


def comma_fields(text: str, flag: str) -> list[str]:
    """The fields of a flag's value."""
    fields = split_fields(text)
    if fields is None:
        raise InvalidInput(f"{flag} {text!r}: invalid quotes", hint='quote a whole field: "dest=/a,b"')
    return fields
