"""Frames survive any way of being cut up, and a broken stream is told from a long one."""

from __future__ import annotations

import json

import pytest

from runtime.containers.frames import MESSAGE, STDOUT, BrokenStream, Decoder, frame, message
from runtime.containers.names import check_name, new_id, random_name
from runtime.errors import InvalidInput


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_frames_arrive_in_any_pieces(size: int) -> None:
    stream = frame(STDOUT, b"hello") + frame(0, b"") + message(op="kill", signal=9)
    decoder = Decoder()
    frames = [f for start in range(0, len(stream), size) for f in decoder.feed(stream[start : start + size])]
    assert frames[:2] == [(STDOUT, b"hello"), (0, b"")]
    assert frames[2][0] == MESSAGE
    assert json.loads(frames[2][1]) == {"op": "kill", "signal": 9}


def test_a_frame_has_dockers_header() -> None:
    assert frame(STDOUT, b"hi") == b"\x01\0\0\0\0\0\0\x02hi"


def test_an_absurd_length_is_a_broken_stream() -> None:
    with pytest.raises(BrokenStream):
        list(Decoder().feed(b"GET / HTTP/1.1\r\n"))


def test_ids_and_names_look_like_dockers() -> None:
    assert len(new_id()) == 64
    assert random_name(bytes(8)) == "able_aiken"
    assert random_name(bytes(8), 2) == "able_aiken2"
    assert check_name("/web-1") == "web-1"


@pytest.mark.parametrize("name", ["", "a", "-x", "a b", "ünder", "a/b", "x" * 256])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)
