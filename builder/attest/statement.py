"""in-toto statements: what is said (a predicate of some type) about whom (subjects with digests). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from builder.attest.purl import image_purl
from registry_client.oci.digest import Digest, split_digest
from registry_client.oci.platform import Platform
from registry_client.values import frozen

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
SPDX_DOCUMENT = "https://spdx.dev/Document"
_NAMELESS = "_"  # BuildKit's subject for an image without a name


@frozen
class Attestation:
    """One predicate, not yet about anybody."""

    predicate_type: str
    predicate: Mapping[str, Any]
    file: str = ""  # what it is called where it lies beside files; by its type unless said


@frozen
class Subject:
    name: str
    digest: Digest


def image_subjects(names: Iterable[str], platform: Platform, digest: Digest) -> tuple[Subject, ...]:
    """An image's manifest under each of its names."""
    found = [Subject(image_purl(name, platform), digest) for name in names]
    return tuple(found) or (Subject(_NAMELESS, digest),)


def statement(attestation: Attestation, subjects: Iterable[Subject], *, readable: bool = False) -> bytes:
    """The statement's JSON, `readable` by people or in one line; the same arguments always give the same bytes."""
    record = {
        "_type": STATEMENT,
        "predicateType": attestation.predicate_type,
        "subject": [
            {"name": subject.name, "digest": dict((split_digest(subject.digest),))} for subject in subjects
        ],
        "predicate": attestation.predicate,
    }
    if readable:
        return json.dumps(record, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
