"""Our protobuf encoding, judged by Google's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.grpc.protobuf import (
    BOOL,
    INT,
    RAW,
    TEXT,
    DecodeError,
    Message,
    integer,
    many,
    mapping,
    raw,
    sub,
    text,
    truth,
)
from tests.support.messages import foreign


@dataclass(slots=True)
class Inner(Message):
    name: str = text(1)
    next: Inner | None = sub(2, lambda: Inner)


@dataclass(slots=True)
class Outer(Message):
    """One field of every kind there is; a large number, since its tag has two bytes."""

    text: str = text(1)
    raw: bytes = raw(2)
    number: int = integer(3)
    truth: bool = truth(4)
    inner: Inner | None = sub(5, lambda: Inner)
    texts: list[str] = many(6, TEXT)
    raws: list[bytes] = many(7, RAW)
    numbers: list[int] = many(8, INT)
    truths: list[bool] = many(9, BOOL)
    inners: list[Inner] = many(10, lambda: Inner)
    named: dict[str, str] = mapping(11, TEXT)
    counted: dict[int, bytes] = mapping(12, RAW, INT)
    inside: dict[str, Inner] = mapping(300, lambda: Inner)


INT64 = st.integers(-(2**63), 2**63 - 1)
INNER: Any = st.recursive(
    st.builds(Inner, name=st.text(), next=st.none()),
    lambda below: st.builds(Inner, name=st.text(), next=below),
    max_leaves=3,
)
OUTER = st.builds(
    Outer,
    text=st.text(),
    raw=st.binary(),
    number=INT64,
    truth=st.booleans(),
    inner=st.none() | INNER,
    texts=st.lists(st.text()),
    raws=st.lists(st.binary()),
    numbers=st.lists(INT64),
    truths=st.lists(st.booleans()),
    inners=st.lists(INNER, max_size=3),
    named=st.dictionaries(st.text(), st.text(), max_size=3),
    counted=st.dictionaries(INT64, st.binary(), max_size=3),
    inside=st.dictionaries(st.text(), INNER, max_size=3),
)
FOREIGN = foreign(Outer)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OUTER)
def test_what_we_write_google_reads_and_writes_back_for_us_to_read(message: Outer) -> None:
    theirs = FOREIGN.FromString(message.encode())
    assert theirs.text == message.text and theirs.number == message.number
    assert dict(theirs.counted) == message.counted and list(theirs.raws) == message.raws
    assert theirs.HasField("inner") is (message.inner is not None)
    assert Outer.decode(theirs.SerializeToString()) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error_as_with_google(data: bytes) -> None:
    try:
        made = Outer.decode(data)
    except DecodeError:
        return
    Outer.decode(made.encode())


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05ab", b"\xff", b"\x18\xff", b"\x0b", b"\x0d\x01", b"\x18" + b"\xff" * 11, b"\x28\x01"],
    ids=[
        "no length",
        "cut text",
        "cut tag",
        "cut number",
        "group",
        "cut fixed",
        "endless number",
        "number for message",
    ],
)
def test_what_google_refuses_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Outer.decode(data)


def test_messages_nested_without_end_are_refused() -> None:
    data = b""
    for _ in range(200):
        data = b"\x12" + _varint(len(data)) + data
    with pytest.raises(DecodeError, match="nested"):
        Inner.decode(data)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes((value & 127 | 128,))
        value >>= 7
    return out + bytes((value,))


def test_fields_nobody_named_are_passed_over() -> None:
    assert Inner.decode(Outer(text="a", numbers=[1, 2], truth=True).encode()) == Inner(name="a")


def test_an_empty_message_within_another_is_told_from_none() -> None:
    assert Outer(inner=Inner()).encode() == b"\x2a\x00"
    assert Outer.decode(b"\x2a\x00").inner == Inner()
    assert Outer.decode(b"").inner is None
