"""How long ago something was, as docker's lists say it."""

from __future__ import annotations

_STEPS = (
    (60, 1, "second"), (3600, 60, "minute"), (48 * 3600, 3600, "hour"), (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"), (730 * 86400, 30 * 86400, "month"),
)  # fmt: skip
_ABOUT = {"minute": "About a minute", "hour": "About an hour"}


def age(seconds: float) -> str:
    """`5 minutes`, `About an hour`, `3 weeks` (docker's go-units, HumanDuration)."""
    if seconds < 1:
        return "Less than a second"
    for limit, unit, word in _STEPS:
        if seconds < limit:
            count = int(seconds // unit)
            return f"{count} {word}s" if count != 1 else _ABOUT.get(word, f"1 {word}")
    return f"{int(seconds // (365 * 86400))} years"
