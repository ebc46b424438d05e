"""Is it a signal? For STOPSIGNAL (FEATURES A-52). Names as Docker takes them, with or without SIG."""

from __future__ import annotations

import re

_RANGE = range(1, 65)


def is_signal(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return len(text) < 4 and int(text) in _RANGE
    name = text.upper().removeprefix("SIG")
    if match := re.fullmatch(r"RTMIN(?:\+(\d{1,2}))?|RTMAX(?:-(\d{1,2}))?", name):
        return int(match[1] or 0) <= 15 and int(match[2] or 0) <= 14
    import signal

    return f"SIG{name}" in signal.Signals.__members__ or name in ("STKFLT", "IOT", "POLL")
