"""Secrets in the output of a step."""

from __future__ import annotations

import itertools

from builder.masking import Masker


def masked(secrets: list[bytes], pieces: list[bytes]) -> bytes:
    masker = Masker(secrets)
    return b"".join(masker.feed(piece) for piece in pieces) + masker.flush()


def test_a_secret_is_masked_wherever_the_stream_is_cut() -> None:
    text = b"the token is s3cr3t-value, keep it"
    for first, second in itertools.combinations(range(len(text)), 2):
        pieces = [text[:first], text[first:second], text[second:]]
        assert masked([b"s3cr3t-value"], pieces) == b"the token is ****, keep it"


def test_lines_of_a_long_secret_are_masked_one_by_one() -> None:
    assert masked([b"first line\nsecond line\n"], [b"> second line\n"]) == b"> ****\n"


def test_short_values_and_no_secrets_change_nothing() -> None:
    assert masked([b"a"], [b"banana"]) == b"banana"
    assert masked([], [b"banana"]) == b"banana"
