"""What a bill of material looks at beside the result of a build: stages and the context, for its time as images in the store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from builder.lower.scanned import Scanned, lower_scanned
from runtime.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.built import Built
    from builder.dockerfile import Dockerfile
    from builder.graph import StageGraph
    from builder.lower import BaseWanted, LowerOptions, ResolvedBase
    from registry_client.oci.digest import Digest
    from runtime.images.image import Image
    from runtime.images.images import Images


class LookedAt:
    """Of one build. A context manager: at its end the images are gone."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._wanted: list[tuple[Scanned, ...]] = []  # for each platform
        self.by_result: dict[Digest, tuple[tuple[str, Image], ...]] = {}

    def lower(
        self,
        dockerfile: Dockerfile,
        options: LowerOptions,
        configs: Mapping[BaseWanted, ResolvedBase],
    ) -> list[StageGraph]:
        """The graphs to be solved for one platform more."""
        found = lower_scanned(dockerfile, options, configs)
        self._wanted.append(found)
        return [each.graph for each in found]

    def take(self, results: Sequence[Built], beside: Sequence[Built]) -> None:
        """What became of all of them, in order."""
        rest = iter(beside)
        for result, wanted in zip(results, self._wanted, strict=True):
            self.by_result[result.image.id] = tuple((each.name, next(rest).image) for each in wanted)

    def __enter__(self) -> LookedAt:
        return self

    def __exit__(self, *error: object) -> None:
        for found in self.by_result.values():
            for _, image in found:
                with suppress(NotFound, Conflict):  # another build looks at the same, or did
                    self._images.remove(image.id)
