"""Annotations of manifests, indexes and their descriptors, as people write them (FEATURES B-14).

An output's field is `annotation[-WHERE][[PLATFORM]].KEY=VALUE`, the flag `--annotation [WHERE[[PLATFORM]][,…]:]KEY=VALUE`;
without WHERE it is the manifest. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from registry_client.oci.platform import Platform, parse_platform
from registry_client.values import frozen
from runtime.errors import InvalidInput

MANIFEST, INDEX = "manifest", "index"
MANIFEST_DESCRIPTOR, INDEX_DESCRIPTOR = "manifest-descriptor", "index-descriptor"
_PLACES = (MANIFEST, INDEX, MANIFEST_DESCRIPTOR, INDEX_DESCRIPTOR)
_PLACE = re.compile(r"(manifest|index|manifest-descriptor|index-descriptor)(?:\[([^\]]+)\])?")
_FIELD = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([^\]]+)\])?\.(.+)")


@frozen
class Annotation:
    """`platform` None is every platform."""

    place: str
    platform: Platform | None
    key: str
    value: str


@frozen
class Annotations:
    """All of one output. A later one wins over an earlier one of the same key."""

    all: tuple[Annotation, ...] = ()

    def of(self, place: str, platform: Platform | None = None) -> dict[str, str]:
        """What is written at a place, for a platform where it is one's own."""
        return {
            each.key: each.value
            for each in self.all
            if each.place == place and (each.platform is None or each.platform == platform)
        }

    def __bool__(self) -> bool:
        return bool(self.all)


def is_field(name: str) -> bool:
    """Whether a field of `--output` is an annotation."""
    return _FIELD.fullmatch(name) is not None


def parse_annotations(flags: Iterable[str], fields: Mapping[str, str]) -> Annotations:
    """Those of `--annotation` for all outputs, then those of one output's own fields."""
    found = [each for text in flags for each in _from_flag(text)]
    for name, value in fields.items():
        if match := _FIELD.fullmatch(name):
            place, platform, key = match[1] or MANIFEST, match[2], match[3]
            if place not in _PLACES:
                raise InvalidInput(
                    f"--output: unknown field {name!r}", hint=f"want annotation-{_PLACES[1]}.KEY"
                )
            found.append(Annotation(place, _platform(place, platform, name), key, value))
    return Annotations(tuple(found))


def _from_flag(text: str) -> list[Annotation]:
    name, equals, value = text.partition("=")
    head, colon, key = name.rpartition(":")
    # A key may have a colon of its own: only known places before it count.
    places = [_PLACE.fullmatch(word) for word in head.split(",")] if colon else []
    if not all(places):
        places, key = [], name
    if not key or not equals:
        raise InvalidInput(f"--annotation {text!r} is not [WHERE:]NAME=VALUE")
    if not places:
        return [Annotation(MANIFEST, None, key, value)]
    return [Annotation(each[1], _platform(each[1], each[2], text), key, value) for each in places if each]


def _platform(place: str, text: str | None, where: str) -> Platform | None:
    if not text:
        return None
    if place not in (MANIFEST, MANIFEST_DESCRIPTOR):
        raise InvalidInput(f"annotation {where!r}: an {place} is of no platform")
    try:
        return parse_platform(text)
    except ValueError as error:
        raise InvalidInput(f"annotation {where!r}: {error}") from error
