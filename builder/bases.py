"""The images a build stands on: which ones, and what each is resolved to.

Of an image that is here everything is. Of any other only manifest and config are fetched now; its layers come when a step
needs its files or the result is stored (`builder.fetching`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from builder.graph import ImageSource
from builder.pools import Pool
from builder.request import BuildRequest
from registry_client.oci.platform import host_platform
from registry_client.reference import parse_reference
from runtime.cancel import Cancel
from runtime.errors import Cancelled, PipeError
from runtime.events import Emit, Finished, Outcome, Started, ignore
from runtime.images.image import Image

if TYPE_CHECKING:
    from builder.dockerfile import Dockerfile
    from builder.lower import BaseWanted, LowerOptions, ResolvedBase
    from registry_client.oci.platform import Platform
    from runtime.images.images import Images
    from runtime.images.lookup import Lookup
    from runtime.images.remote import RemoteImage
    from runtime.images.transport import Transport


class Bases:
    """The base images of one build, all platforms together. Without `pool` only what is here is resolved."""

    def __init__(
        self,
        images: Images,
        request: BuildRequest,
        pool: Pool | None,
        cancel: Cancel,
        transport: Transport,
        emit: Emit = ignore,
    ) -> None:
        self._images, self._request, self._pool, self._cancel = images, request, pool, cancel
        self._transport, self._emit = transport, emit
        self._resolved: dict[tuple[str, str], Image | RemoteImage] = {}
        self._lookups: dict[str, Lookup] = {}
        self._asked = 0
        self._lock = threading.Lock()

    def __getitem__(self, source: ImageSource) -> Image | RemoteImage:
        """What a source of the graph was resolved to."""
        return self._resolved[(source.reference, source.platform)]

    @property
    def all_here(self) -> bool:
        return all(isinstance(base, Image) for base in self._resolved.values())

    def resolve(self, dockerfile: Dockerfile, options: LowerOptions) -> Mapping[BaseWanted, ResolvedBase]:
        """Resolve the images the target needs, and those that ONBUILD triggers of these bring in."""
        from builder.lower import ResolvedBase, bases

        known: dict[BaseWanted, ResolvedBase] = {}
        while missing := [each for each in bases(dockerfile, options, known) if each not in known]:
            for wanted, base in self._resolve_all(missing, options):
                self._resolved[(wanted.reference, str(wanted.platform))] = base
                image = described(base)
                known[wanted] = ResolvedBase(image.manifest_digest or image.id, image.config)
        return known

    def _resolve_all(
        self, missing: Sequence[BaseWanted], options: LowerOptions
    ) -> list[tuple[BaseWanted, Image | RemoteImage]]:
        if self._pool is None:
            return [(wanted, self._resolve(wanted, options)) for wanted in missing]
        tasks = [(wanted, self._pool.submit(self._resolve, wanted, options)) for wanted in missing]
        return [(wanted, task.result()) for wanted, task in tasks]

    def _resolve(self, wanted: BaseWanted, options: LowerOptions) -> Image | RemoteImage:
        known = self._resolved.get((wanted.reference, str(wanted.platform)))
        if known is not None:
            return known  # by an earlier attempt
        try:
            if wanted.reference.startswith("oci-layout://"):
                from builder.operations.layouts import load_layout

                return load_layout(self._images, wanted.reference, wanted.platform)
            asked = options.platform is not None or wanted.platform != options.target_platform
            # Nobody asked: an image that is here may be of any platform, and then decides.
            return self._image(wanted.reference, wanted.platform if asked else None)
        except PipeError as error:
            if error.span is None:
                error.span = wanted.span
            raise

    def _image(self, name: str, platform: Platform | None) -> Image | RemoteImage:
        policy = self._request.pull
        if self._pool is None or policy == "never":
            return self._images.resolve(name, platform=platform, pull="never")
        local = self._images.local(name, platform) if policy != "always" else None
        return local or self._looked_up(name, platform or host_platform())

    def _looked_up(self, name: str, platform: Platform) -> Image | RemoteImage:
        from runtime.images.lookup import Lookup

        reference, parent = parse_reference(name), self._request.node
        with self._lock:
            lookup = self._lookups.setdefault(name, Lookup(self._images.store, reference))
            self._asked += 1
            node = f"{parent}/resolve-{self._asked}"
        self._emit(Started(node=node, name=f"resolve {reference.familiar}", parent=parent))
        try:
            found = self._images.look_up(lookup, self._transport, platform, self._cancel)
        except PipeError as error:
            outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.ERROR
            self._emit(Finished(node=node, outcome=outcome, error=error.message))
            raise
        self._emit(Finished(node=node, outcome=Outcome.DONE, detail=described(found).short_id))
        return found


def described(base: Image | RemoteImage) -> Image:
    """The image as a value, whether it is here or not."""
    return base if isinstance(base, Image) else base.image
