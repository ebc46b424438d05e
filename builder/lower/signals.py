"""Is it a signal? For STOPSIGNAL (FEATURES A-52). Names as Docker takes them, with or without SIG."""

from __future__ import annotations

import re

_RANGE = range(1, 65)


def is_signal(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return len(text) < 4 and int(text) in _RANGE
    name = text.upper().removeprefix("SIG")
    if match := re.fullmatch(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?", name):
        base = 34 if match[1] == "MIN" else 64
        offset = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
        return base + offset in range(34, 65)
    import signal

    return f"SIG{name}" in signal.Signals.__members__ or name in ("STKFLT", "IOT", "POLL", "UNUSED")
