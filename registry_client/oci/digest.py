"""Content digests (image-spec descriptor.md#digests).

A `Digest` is a string `algorithm:hex` that was checked. Which bytes it covers is the caller's to say: see the
six words of ARCHITECTURE.md (digest, diff_id, chain_id, image id, vertex digest, cache key).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType

Digest = NewType("Digest", str)

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_SHAPE = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")


def parse_digest(text: str) -> Digest:
    """Check `text` as a sha256 or sha512 digest; ValueError names what is wrong."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid digest {text!r}")
    algorithm, encoded = match.groups()
    length = _HEX_LENGTH.get(algorithm)
    if length is None:
        raise ValueError(f"unsupported digest algorithm {algorithm!r} in {text!r}")
    if len(encoded) != length or not re.fullmatch("[a-f0-9]+", encoded):
        raise ValueError(f"invalid {algorithm} digest {text!r}: want {length} lower-case hex digits")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def split_digest(digest: Digest) -> tuple[str, str]:
    """`(algorithm, hex)` of a digest that was already checked."""
    algorithm, _, encoded = digest.partition(":")
    return algorithm, encoded


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """The chain id after each layer (image-spec config.md#layer-chainid)."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
