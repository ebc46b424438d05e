"""Queries as docker's clients write them."""

from __future__ import annotations

import time
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from runtime.daemon.asked import filters_of, flag, is_true, number, time_of
from runtime.errors import InvalidInput
from runtime.http.messages import BodyReader, Headers, Request


def asked(**query: Any) -> Request:
    target = f"/x?{urlencode(query)}"
    return Request("GET", target, Headers([]), cast(BodyReader, None), "/x")


@pytest.mark.parametrize(("text", "on"), [("1", True), ("true", True), ("True", True), ("yes", True), ("0", False), ("false", False), ("", False), ("none", False)])  # fmt: skip
def test_flags(text: str, on: bool) -> None:
    assert flag(asked(f=text), "f") is on


def test_a_flag_that_is_not_there_is_its_default() -> None:
    assert flag(asked(), "f") is False
    assert flag(asked(), "f", default=True) is True


def test_numbers() -> None:
    assert [number(asked(n=text), "n") for text in ("12", "-1", "x", "")] == [12, -1, 0, 0]


def test_filters_in_both_forms() -> None:
    known = ("a", "b")
    assert filters_of(asked(filters='{"a":["1","2"]}'), known) == {"a": ["1", "2"]}
    assert filters_of(asked(filters='{"a":{"1":true,"2":false}}'), known) == {"a": ["1"]}
    assert filters_of(asked(), known) == {}
    for wrong in ("x", "[]", '{"c":["1"]}', '{"a":"1"}'):
        with pytest.raises(InvalidInput, match="invalid filter"):
            filters_of(asked(filters=wrong), known)


def test_times() -> None:
    assert time_of("1700000000.5") == 1700000000.5
    assert time_of("2023-11-14T22:13:20Z") == 1700000000
    assert time_of("2023-11-14T23:13:20+01:00") == 1700000000
    assert abs(time.time() - 5400 - time_of("1h30m")) < 5
    for wrong in ("yesterday", "", "1x", "inf", "nan"):
        with pytest.raises(InvalidInput, match="invalid time"):
            time_of(wrong)


def test_truths() -> None:
    assert is_true("1", "f") and not is_true("False", "f")
    with pytest.raises(InvalidInput):
        is_true("maybe", "f")
