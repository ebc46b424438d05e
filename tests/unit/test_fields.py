"""Comma separated fields of flags."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidInput
from runtime.fields import comma_fields, split_fields


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a=b,c", ["a=b", "c"]),
        ('"a=b,c",d', ["a=b,c", "d"]),
        ('"say ""x""",', ['say "x"', ""]),
        ("", [""]),
        ("a\rb\nc,d", ["a\rb\nc", "d"]),
    ],
)
def test_quotes_keep_commas_together(text: str, fields: list[str]) -> None:
    assert split_fields(text) == fields


@pytest.mark.parametrize("text", ['a"b', '"a', '"a"b', 'a,"'])
def test_a_quote_in_the_middle_is_refused_by_name_of_the_flag(text: str) -> None:
    with pytest.raises(InvalidInput, match="--output"):
        comma_fields(text, "--output")


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.text(alphabet='ab=," ', max_size=6), min_size=1, max_size=5))
def test_what_pythons_csv_writes_is_read_back(fields: list[str]) -> None:
    written = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert split_fields(written) == fields == next(csv.reader([written]))
