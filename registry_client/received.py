"""What a registry sent with a manifest, checked: digest and media type."""

from __future__ import annotations

import hashlib

import httpx

from registry_client.errors import Invalid
from registry_client.oci import media_types
from registry_client.oci.digest import Digest, digest_of, parse_digest, split_digest
from registry_client.oci.manifest import parse_manifest


def media_type_of(response: httpx.Response, raw: bytes) -> str:
    sent = str(response.headers.get("content-type", "")).partition(";")[0].strip()
    if raw and sent not in media_types.INDEXES | media_types.MANIFESTS:
        # Static file servers and some proxies say text/plain; the manifest may say itself what it is.
        try:
            return parse_manifest(raw, sent).media_type
        except ValueError:
            return sent
    return sent


def checked_digest(text: str, what: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise Invalid(f"cannot {what}: {error}") from error


def verified_digest(raw: bytes, selector: str, told: str, what: str) -> Digest:
    """The manifest's digest, after a check against the one asked for, or else the one the registry told."""
    expected = selector if ":" in selector else told
    if not expected:
        return digest_of(raw)
    digest = checked_digest(expected, what)
    algorithm, encoded = split_digest(digest)
    actual = hashlib.new(algorithm, raw).hexdigest()
    if actual != encoded:
        raise Invalid(
            f"cannot {what}: its content is {algorithm}:{actual}, not {digest}",
            hint="the registry or something on the way changed it",
        )
    return digest
