"""`format`: Go's verbs, with cty's values (`%v`, `%s`, `%d`, `%q`, `%[1]s`)."""

from __future__ import annotations

import json
import re
from typing import Any

from pipeline.bake.hcl.evaluate import as_number, as_text, as_truth
from runtime.errors import InvalidInput

_VERB = re.compile(r"%([-+ #0]*)(\d*)(?:\.(\d*))?(?:\[(\d+)\])?([a-zA-Z%])|%")


def formatted(form: Any, *values: Any) -> str:
    """Every value has to be used, and there has to be one for each verb."""
    text = as_text(form)
    out, at, used, last = [], 0, 0, 0
    for found in _VERB.finditer(text):
        out.append(text[at : found.start()])
        at = found.end()
        flags, width, precision, number, verb = found.groups()
        if verb is None:
            raise InvalidInput(f"unknown verb at {text[found.start() :]!r}")
        if verb == "%":
            out.append("%")
            continue
        used = int(number) if number else used + 1
        last = max(last, used)
        if not 1 <= used <= len(values):
            raise InvalidInput(f"not enough values for {text!r}")
        shown = _shown(verb, values[used - 1], flags, precision)
        size = int(width or 0)
        fill = "0" if "0" in flags and verb in "dfeEgGbxXo" else " "
        out.append(shown.ljust(size) if "-" in flags else _padded(shown, size, fill))
    if last < len(values):
        raise InvalidInput(f"too many values for {text!r}")
    return "".join([*out, text[at:]])


def _padded(shown: str, size: int, fill: str) -> str:
    return shown.zfill(size) if fill == "0" else shown.rjust(size)


def _shown(verb: str, value: Any, flags: str, precision: str | None) -> str:
    sign = "+" if "+" in flags else " " if " " in flags else ""
    if verb == "v":
        if "#" in flags or value is None or isinstance(value, (list, dict)):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return as_text(value)
    if verb in "sq":
        text = as_text(value)
        text = text if precision is None else text[: int(precision or 0)]
        return json.dumps(text, ensure_ascii=False) if verb == "q" else text
    if verb == "t":
        return as_text(as_truth(value))
    number = as_number(value)
    if verb in "feEgG":
        digits = int(precision or 0) if precision is not None else None
        if verb in "gG":
            return (
                f"{number:{sign}.{digits}{verb}}"
                if digits is not None
                else f"{sign if number >= 0 else ''}{as_text(number)}"
            )
        return f"{number:{sign}.{6 if digits is None else digits}{verb}}"
    if verb in "dbxXo":
        return f"{int(number):{sign}{verb}}"
    raise InvalidInput(f"unknown verb %{verb}")


def formatlist(form: Any, *values: Any) -> list[str]:
    """One text for each item of the lists; what is no list is the same in all."""
    sizes = {len(value) for value in values if isinstance(value, list)}
    if len(sizes) > 1:
        raise InvalidInput("the lists have different lengths")
    count = sizes.pop() if sizes else 1
    return [
        formatted(form, *(value[row] if isinstance(value, list) else value for value in values))
        for row in range(count)
    ]
