"""Which images a list is about: `docker images --filter`, on the command line and over the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from registry_client.reference import parse_reference
from runtime.errors import InvalidInput
from runtime.images.prune import created_seconds, has_label

if TYPE_CHECKING:
    from runtime.images.image import Image
    from runtime.images.images import Images

FILTERS = ("dangling", "label", "reference", "before", "since", "until")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Selection:
    """All filters have to hold; of several labels all, of several references one. `until` is in seconds since 1970."""

    def __init__(self, images: Images, filters: Mapping[str, Sequence[str]]) -> None:
        self._dangling: bool | None = None
        for text in filters.get("dangling", ()):
            if text.lower() not in _TRUTH:
                raise InvalidInput(f"invalid filter 'dangling=[{text}]'", hint="want true or false")
            self._dangling = _TRUTH[text.lower()]
        self._labels = tuple(filters.get("label", ()))
        self._references = tuple(filters.get("reference", ()))
        self._before = [created_seconds(images.get(name)) for name in filters.get("before", ())]
        self._before += [float(text) for text in filters.get("until", ())]
        self._since = [created_seconds(images.get(name)) for name in filters.get("since", ())]

    def names(self, image: Image) -> tuple[str, ...] | None:
        """The names the image is listed by, none for a nameless one; None when it is not listed."""
        if self._dangling is not None and bool(image.tags) == self._dangling:
            return None
        if not all(has_label(image, label) for label in self._labels):
            return None
        made = created_seconds(image)
        if any(made >= limit for limit in self._before) or any(made <= limit for limit in self._since):
            return None
        if not self._references:
            return image.tags
        return tuple(tag for tag in image.tags if self._is_referred(tag)) or None

    def _is_referred(self, tag: str) -> bool:
        reference = parse_reference(tag)
        spellings = (reference.familiar_name, reference.familiar)
        return any(fnmatchcase(each, pattern) for pattern in self._references for each in spellings)
