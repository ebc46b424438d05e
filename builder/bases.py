"""The images a build stands on: which ones, and what each is resolved to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from builder.pools import Pool
from builder.request import BuildRequest
from builder.sources import BuildSources
from runtime.cancel import Cancel
from runtime.errors import PipeError

if TYPE_CHECKING:
    from builder.dockerfile import Dockerfile
    from builder.lower import BaseWanted, LowerOptions, ResolvedBase
    from runtime.images.image import Image
    from runtime.images.images import Images

_POLICY: Mapping[str, Literal["missing", "always", "never"]] = {
    "auto": "missing",
    "missing": "missing",
    "always": "always",
    "never": "never",
}


class Bases:
    """Resolves base images for one build: in `pool`, or, without one, only if they are here."""

    def __init__(self, images: Images, request: BuildRequest, pool: Pool | None, cancel: Cancel) -> None:
        self._images, self._request, self._pool, self._cancel = images, request, pool, cancel

    def resolve(
        self, dockerfile: Dockerfile, options: LowerOptions, sources: BuildSources
    ) -> Mapping[BaseWanted, ResolvedBase]:
        """Resolve the images the target needs, and those that ONBUILD triggers of these bring in."""
        from builder.lower import ResolvedBase, bases

        known: dict[BaseWanted, ResolvedBase] = {}
        while missing := [each for each in bases(dockerfile, options, known) if each not in known]:
            for wanted, image in self._resolve_all(missing, options):
                digest = image.manifest_digest or image.id
                known[wanted] = ResolvedBase(digest, image.config)
                sources.know_base(wanted.reference, str(wanted.platform), image)
        return known

    def _resolve_all(
        self, missing: Sequence[BaseWanted], options: LowerOptions
    ) -> list[tuple[BaseWanted, Image]]:
        if self._pool is None:
            return [(wanted, self._resolve(wanted, options)) for wanted in missing]
        tasks = [(wanted, self._pool.submit(self._resolve, wanted, options)) for wanted in missing]
        return [(wanted, task.result()) for wanted, task in tasks]

    def _resolve(self, wanted: BaseWanted, options: LowerOptions) -> Image:
        reference = wanted.reference
        try:
            if reference.startswith("oci-layout://"):
                from builder.operations.layouts import load_layout

                return load_layout(self._images, reference, wanted.platform)
            asked = options.platform is not None or wanted.platform != options.target_platform
            return self._images.resolve(
                reference,
                # Nobody asked: an image that is here may be of any platform, and then decides.
                platform=wanted.platform if asked else None,
                pull="never" if self._pool is None else _POLICY[self._request.pull],
                cancel=self._cancel,
            )
        except PipeError as error:
            if error.span is None:
                error.span = wanted.span
            raise
