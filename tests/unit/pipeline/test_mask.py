"""Secrets are hidden in every form and across every chunk border; nothing else is changed."""

from __future__ import annotations

import base64
import json
import random
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.mask import MaskedEmit, Secrets, StreamMasker
from runtime.events import Event, Finished, Outcome, Output

SECRET = b'p@ss/w+rd "q" 1234'


def masked(secrets: Secrets, data: bytes, seed: int = 0) -> bytes:
    masker, rng, out, at = StreamMasker(secrets), random.Random(seed), b"", 0
    while at < len(data):
        size = rng.randint(1, 7)
        out += masker.feed(data[at : at + size])
        at += size
    return out + masker.flush()


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        base64.b64encode(b"user:" + SECRET + b":more"),
        base64.urlsafe_b64encode(b"xy" + SECRET),
        base64.b64encode(SECRET),
        urllib.parse.quote(SECRET).encode(),
        urllib.parse.quote(SECRET, safe="").encode(),
        urllib.parse.quote_plus(SECRET).encode(),
        json.dumps(SECRET.decode()).encode(),
        SECRET.hex().encode(),
    ],
)
def test_every_form_is_hidden_whatever_the_chunks(shown: bytes) -> None:
    for seed in range(30):
        out = masked(Secrets([SECRET]), b"before " + shown + b" after", seed)
        assert b"***" in out
        assert b"w+rd" not in out and shown[4:12] not in out
        assert out.startswith(b"before ") and out.endswith(b" after")


def test_each_line_of_a_secret_is_hidden() -> None:
    out = masked(Secrets([b"-----BEGIN KEY-----\nabcdefgh\nijklmnop\n"]), b"x abcdefgh y\nijklmnop\n")
    assert out == b"x *** y\n***\n"


def test_a_short_value_is_left_alone() -> None:
    assert masked(Secrets([b"1"]), b"1 of 11") == b"1 of 11"


def test_what_only_begins_like_a_secret_comes_out_in_the_end() -> None:
    assert (
        masked(Secrets([b"hunter2secret"]), b"hunter2sec and hunter2secre") == b"hunter2sec and hunter2secre"
    )


def test_nothing_is_held_back_that_cannot_become_a_secret() -> None:
    masker = StreamMasker(Secrets([b"hunter2secret"]))
    assert masker.feed(b"a line\n") == b"a line\n"


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    assert masked(Secrets([b"abcd", b"abcdefgh"]), b"x abcdefgh y") == b"x *** y"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=4, max_size=12), min_size=1, max_size=3), st.data())
def test_no_secret_survives_any_chunking(values: list[bytes], data: st.DataObject) -> None:
    text = b"".join(
        data.draw(st.sampled_from([*values, b"x", b"\n", b"abc"]))
        for _ in range(data.draw(st.integers(0, 8)))
    )
    out = masked(Secrets(values), text, data.draw(st.integers(0, 99)))
    assert out == Secrets(values).mask(text)


def test_events_are_masked_per_stream_and_flushed_when_the_node_ends() -> None:
    seen: list[Event] = []
    emit = MaskedEmit(seen.append, Secrets([b"hunter2secret"]))
    emit(Output(node="stage/a", stream="stdout", data=b"x hunter2"))
    emit(Output(node="stage/a", stream="stderr", data=b"other\n"))
    emit(Output(node="stage/a", stream="stdout", data=b"secret y hunt"))
    emit(Finished(node="stage/a", outcome=Outcome.FAILED, error="bad hunter2secret"))
    out = b"".join(e.data for e in seen if isinstance(e, Output) and e.stream == "stdout")
    assert out == b"x *** y hunt"
    assert isinstance(seen[-1], Finished) and seen[-1].error == "bad ***"


def test_a_key_of_many_lines_is_hidden_line_by_line_and_as_a_whole() -> None:
    lines = [base64.b64encode(random.Random(n).randbytes(48)) for n in range(60)]
    key = b"\n".join([b"-----BEGIN KEY-----", *lines, b"-----END KEY-----"])
    secrets = Secrets([key])
    out = masked(secrets, b"x\n" + key + b"\ny " + base64.b64encode(key) + b" z")
    assert not any(line in out for line in lines)
    assert base64.b64encode(key)[8:40] not in out
    assert out == b"x\n***\ny *** z"
    assert masked(secrets, b"\n".join(lines[3:6])) == b"***\n***\n***"


def test_a_bundle_of_certificates_is_no_secret() -> None:
    assert masked(Secrets([b"line of a bundle\n" * 2000]), b"line of a bundle\n") == b"line of a bundle\n"
