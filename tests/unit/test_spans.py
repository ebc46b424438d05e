"""Excerpts: the lines a person would count, and of very much the beginning and the end."""

from __future__ import annotations

from runtime.spans import Source, Span


def test_lines_end_where_editors_end_them() -> None:
    source = Source("f", "one\x0cstill one\r\ntwo\u2028still two\nthree\n")
    assert source.line(2) == "two\u2028still two"
    assert source.line(4) == ""
    assert Span(source, 3).excerpt(0) == "   3 | >>> three"
    assert Span(Source("f", ""), 1).excerpt() == ""


def test_a_long_line_and_a_long_span_are_cut() -> None:
    text = "RUN " + "a" * 1000 + "\n" + "line\n" * 500
    first, *_ = Span(Source("f", text), 1).excerpt().splitlines()
    assert len(first) < 220 and first.endswith("…")
    rows = Span(Source("f", text), 2, end_line=400).excerpt().splitlines()
    assert len(rows) == 41
    assert rows[20] == "     | 362 more lines"
    assert rows[-1].startswith(" 402 |")
