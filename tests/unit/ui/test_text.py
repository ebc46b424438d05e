from __future__ import annotations

import pytest

from pipeline.ui.text import duration, plain_text, size, table
from runtime.ages import age


@pytest.mark.parametrize(
    "count, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_550_000, "1.55 MB"), (2_000_000_000_000_000, "2e+03 TB")],
)
def test_sizes_are_decimal(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("seconds, text", [(0.04, "0.0s"), (59.9, "59.9s"), (125, "2m05s"), (3720, "1h02m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (119, "About a minute"),
        (3700, "About an hour"),
        (7300, "2 hours"),
        (13 * 86400, "13 days"),
        (30 * 86400, "4 weeks"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    "line, text",
    [
        (b"10%\r50%\r100%", "100%"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07x", "x"),
        (b"a\x00b\tc", "ab\tc"),
        (b"\xff", "\ufffd"),
    ],
)
def test_output_cannot_take_over_the_terminal(line: bytes, text: str) -> None:
    assert plain_text(line) == text


def test_tables_align() -> None:
    assert table(["NAME", "ID"], [["a", "1"], ["longer", "2"]]) == "NAME     ID\na        1\nlonger   2"
