"""Get an image from a registry (FEATURES C-16): index, manifest for the platform, config, layers; then its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.platform import Platform
from registry_client.reference import Reference
from runtime.cancel import Cancel
from runtime.errors import Cancelled, PipeError
from runtime.events import Finished, Outcome, Started
from runtime.images.fetch import Fetch, record
from runtime.images.image import Image
from runtime.images.lookup import Lookup
from runtime.images.progress import Reporter
from runtime.images.transport import connected, of_its_own

if TYPE_CHECKING:
    from runtime.images.images import Images


def pull(images: Images, reference: Reference, platform: Platform, cancel: Cancel | None) -> Image:
    """Pull `reference` for `platform` and unpack it; the image, which then has the reference's tag."""
    node = f"pull/{reference.familiar}"
    cancel = cancel or Cancel()
    images.emit(Started(node=node, name=f"pull {reference.familiar}"))
    try:
        with of_its_own(images.transport) as transport, connected(transport, reference, cancel) as client:

            def tell(blob: Descriptor) -> Reporter:
                return Reporter(images.emit, node, blob)

            found = Lookup(images.store, reference).find(client, platform, cancel, tell)
            Fetch(images, client, found, cancel, node).layers()
        image = record(images, found)
    except PipeError as error:
        outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.ERROR
        images.emit(Finished(node=node, outcome=outcome, error=error.message))
        raise
    images.emit(Finished(node=node, outcome=Outcome.DONE, detail=image.short_id))
    return image
