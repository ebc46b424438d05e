"""Small things both renderers and tables say: sizes, durations, ages, and output that must not take over the terminal."""

from __future__ import annotations

import re

# CSI, OSC and two-byte escapes (ECMA-48), then control characters other than tab.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])|[\x00-\x08\x0b-\x1f\x7f]"
)
_SIZES = ("B", "kB", "MB", "GB", "TB")


def plain_text(line: bytes) -> str:
    """A line of a program's output as text: what a carriage return overwrote, colours and control characters are gone."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    return _ESCAPES.sub("", text.rsplit("\r", 1)[-1])


def size(count: int) -> str:
    """`1.5 MB`; decimal units, as docker prints them."""
    number, unit = float(count), 0
    while number >= 1000 and unit < len(_SIZES) - 1:
        number, unit = number / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{number:.3g} {_SIZES[unit]}"


def duration(seconds: float) -> str:
    """`0.4s`, `2m05s`, `1h02m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, three spaces apart, the last one open."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]
    ]
    return "\n".join(lines)
