"""What stands in a request's query: flags, numbers, JSON, filters, times. Read as leniently as docker does."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from runtime.errors import InvalidInput
from runtime.http.messages import Request

_OFF = ("", "0", "no", "false", "none")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h|d)")


def flag(request: Request, name: str, default: bool = False) -> bool:
    if name not in request.query:
        return default
    return request.argument(name).strip().lower() not in _OFF


def number(request: Request, name: str) -> int:
    """A whole number; 0 for anything else."""
    try:
        return int(request.argument(name))
    except ValueError:
        return 0


def json_of(request: Request, name: str, what: str) -> Any:
    """A value that is JSON; None when it is not there."""
    text = request.argument(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{what}: {error}") from error


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """Within the block, values of other types than expected are the client's mistake."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise InvalidInput(f"{what} is not as it should be: {error}") from error


def filters_of(request: Request, known: Collection[str]) -> dict[str, list[str]]:
    """`filters`: a map from name to values, or to a map whose keys are the values, as older clients send it."""
    record = json_of(request, "filters", "invalid filter")
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise InvalidInput("invalid filter: want a JSON object")
    found = {}
    for name, values in record.items():
        if name not in known:
            raise InvalidInput(f"invalid filter '{name}'")
        if isinstance(values, dict):
            values = [value for value, wanted in values.items() if wanted]
        if not isinstance(values, list):
            raise InvalidInput(f"invalid filter '{name}': want a list")
        found[name] = [str(value) for value in values]
    return found


def is_true(text: str, name: str) -> bool:
    """A filter's flag."""
    if text.lower() in ("1", "true", "t"):
        return True
    if text.lower() in ("0", "false", "f"):
        return False
    raise InvalidInput(f"invalid filter '{name}={text}'")


def time_of(text: str) -> float:
    """Seconds since 1970 of a unix time, an RFC 3339 time, or how long ago (`10m`, `1h30m`)."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(seconds):
            raise InvalidInput(f"invalid time {text!r}")
        return seconds
    if _DURATION.sub("", text) == "" and text:
        return time.time() - sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError as error:
        raise InvalidInput(
            f"invalid time {text!r}", hint="want seconds, RFC 3339, or a duration as 1h30m"
        ) from error
