"""Go's durations, as HEALTHCHECK takes them: `1h30m`, `1.5s`, `300ms`."""

from __future__ import annotations

import re

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_LIMIT = 2**63 - 1


def parse_duration(text: str) -> int:
    """Nanoseconds; ValueError when it is no duration."""
    if text in ("0", "+0", "-0"):
        return 0
    match = re.fullmatch(rf"([+-]?)((?:{_PART})+)", text) if len(text) < 100 else None
    if match is None:
        raise ValueError(f"invalid duration {text!r}: want a number with a unit, such as 30s or 1m30s")
    total = sum(_nanoseconds(number, unit) for number, unit in re.findall(_PART, match[2]))
    if total > _LIMIT:
        raise ValueError(f"duration {text!r} is too long")
    return -total if match[1] == "-" else total


def _nanoseconds(number: str, unit: str) -> int:
    """Exact, unlike floating point."""
    whole, _, fraction = number.partition(".")
    size = _UNITS[unit]
    return int(whole or 0) * size + int(fraction or 0) * size // int(10 ** len(fraction))
