"""`--cache-from` and `--cache-to` as values. Pure; the flags' spelling is docker's (FEATURES B-10)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from registry_client.reference import parse_reference
from runtime.errors import InvalidInput, Unsupported, did_you_mean
from runtime.fields import comma_fields

COMPRESSIONS = ("gzip", "zstd", "uncompressed")
_ELSEWHERE = ("gha", "s3", "azblob")
_FROM = ("type", "ref", "src", "tag", "digest")
_TO = (
    "type", "ref", "dest", "tag", "reset", "mode", "compression", "compression-level", "force-compression", "ignore-error",
    "oci-mediatypes", "image-manifest",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFrom:
    """Where records may be found. `place` is a reference or a directory."""

    type: str  # registry or local
    place: str
    tag: str = "latest"
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.type} {self.place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTo:
    """Where records go. `everything` is mode=max: the layers of all stages, not only those of the result."""

    type: str  # registry, local or inline
    place: str = ""
    tag: str = "latest"
    everything: bool = False
    compression: str = "gzip"  # "" for none
    reset: bool = False
    ignore_error: bool = False

    @property
    def name(self) -> str:
        return f"{self.type} {self.place}".rstrip()


def parse_cache_from(text: str) -> CacheFrom:
    """`type=registry,ref=REF`, `type=local,src=DIR`, or a reference alone."""
    given = _fields(text, "--cache-from", _FROM)
    kind = _kind(given, "--cache-from", text, ("registry", "local"))
    place = _place(given, kind, "src", "--cache-from", text)
    return CacheFrom(type=kind, place=place, tag=given.get("tag", "latest"), digest=given.get("digest", ""))


def parse_cache_to(text: str) -> CacheTo:
    """`type=registry,ref=REF,mode=max`, `type=local,dest=DIR`, `type=inline`, or a reference alone."""
    given = _fields(text, "--cache-to", _TO)
    kind = _kind(given, "--cache-to", text, ("registry", "local", "inline"))
    mode = given.get("mode", "min")
    if mode not in ("min", "max") or (kind == "inline" and mode == "max"):
        raise InvalidInput(f"--cache-to {text!r}: mode {mode!r}", hint="min or max; inline is always min")
    compression = given.get("compression", "gzip")
    if compression not in COMPRESSIONS:
        raise InvalidInput(f"--cache-to {text!r}: compression {compression!r}", hint=", ".join(COMPRESSIONS))
    for name in ("oci-mediatypes", "image-manifest"):
        if not _truth(given, name, "--cache-to", default=True):
            raise Unsupported(f"--cache-to {text!r}: {name}=false", hint="a cache is always an OCI manifest")
    return CacheTo(
        type=kind,
        place="" if kind == "inline" else _place(given, kind, "dest", "--cache-to", text),
        tag=given.get("tag", "latest"),
        everything=mode == "max",
        compression="" if compression == "uncompressed" else compression,
        reset=_truth(given, "reset", "--cache-to"),
        ignore_error=_truth(given, "ignore-error", "--cache-to"),
    )


Wanted = TypeVar("Wanted", CacheFrom, CacheTo)


def below(root: str, wanted: Wanted) -> Wanted:
    """The same with a relative directory taken from `root`."""
    return replace(wanted, place=os.path.join(root, wanted.place)) if wanted.type == "local" else wanted


def _fields(text: str, flag: str, known: tuple[str, ...]) -> dict[str, str]:
    if "=" not in text:
        return {"type": "registry", "ref": text}
    found = {}
    words = [word.partition("=") for word in comma_fields(text, flag)]
    kind = next((value for name, _, value in words if name == "type"), "")
    if kind in _ELSEWHERE:  # its own fields are none of ours
        raise Unsupported(f"{flag} type={kind} is not supported", hint="type=registry and type=local are")
    for name, _, value in words:
        if name not in known:
            raise InvalidInput(f"{flag} {text!r}: unknown field {name!r}", hint=did_you_mean(name, known))
        found[name] = value
    return found


def _kind(given: Mapping[str, str], flag: str, text: str, known: tuple[str, ...]) -> str:
    kind = given.get("type", "")
    if kind not in known:
        hint = did_you_mean(kind, known) or f"want one of {', '.join(known)}"
        raise InvalidInput(f"{flag} {text!r}: unknown type {kind!r}", hint=hint)
    return kind


def _place(given: Mapping[str, str], kind: str, directory: str, flag: str, text: str) -> str:
    field = "ref" if kind == "registry" else directory
    place = given.get(field, "")
    if not place:
        raise InvalidInput(f"{flag} {text!r} needs {field}=")
    if kind == "registry":
        try:
            parse_reference(place)
        except ValueError as error:
            raise InvalidInput(f"{flag}: {error}") from error
    return place


def _truth(given: Mapping[str, str], name: str, flag: str, *, default: bool = False) -> bool:
    text = given.get(name)
    if text is None:
        return default
    if text.lower() not in ("true", "false", "1", "0"):
        raise InvalidInput(f"{flag}: {name}={text}", hint="want true or false")
    return text.lower() in ("true", "1")
