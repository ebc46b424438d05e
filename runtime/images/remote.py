"""Images of registries that are known by manifest and config only, and whose layers come when somebody needs them.

Nothing of them is recorded: to the store's other users they are not there before `bring` had every layer. What this
process learned of where layers can be had is kept in `Elsewhere`, for pushes that need not have a layer to name it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from registry_client.oci.digest import chain_ids
from runtime.errors import Cancelled, PipeError
from runtime.events import Finished, Outcome, Started
from runtime.images.arrivals import is_here
from runtime.images.fetch import Fetch, record
from runtime.images.transport import connected

if TYPE_CHECKING:
    from registry_client.oci.descriptor import Descriptor
    from registry_client.oci.digest import Digest
    from registry_client.reference import Reference
    from runtime.cancel import Cancel
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.images.lookup import Found
    from runtime.images.transport import Transport


class RemoteImage:
    """One image of a registry; `image` describes it."""

    def __init__(self, images: Images, transport: Transport, found: Found, cancel: Cancel) -> None:
        self._images, self._transport, self._found, self._cancel = images, transport, found, cancel
        self.image = found.described()
        images.elsewhere.add(self)

    @property
    def reference(self) -> Reference:
        return self._found.reference

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self._found.manifest.layers

    @property
    def is_unpacked(self) -> bool:
        """Whether its files are here (and kept from now on)."""
        diff_ids = self.image.diff_ids
        return not diff_ids or self._images.store.snapshots.by_chain(chain_ids(diff_ids)[-1]) is not None

    @property
    def is_here(self) -> bool:
        """Whether nothing has to be fetched or unpacked, and every blob is known to be the layer it is said to be."""
        records, store = self._images.records, self._images.store
        return self.is_unpacked and all(
            is_here(store, blob.digest)
            and blob.digest in {form.digest for form in records.layer_forms(diff_id)}
            for diff_id, blob in zip(self.image.diff_ids, self.layers, strict=True)
        )

    def keep(self) -> Image:
        """Make it an image of the store; all of it is here."""
        return record(self._images, self._found)

    def bring(self, cancel: Cancel, node: str, parent: str = "") -> Image:
        """Fetch what is missing and make it an image of the store. Tells of it as `node`."""
        emit = self._images.emit
        emit(Started(node=node, name=f"pull {self.reference.familiar}", parent=parent))
        try:
            with connected(self._transport, self.reference, cancel) as client:
                Fetch(self._images, client, self._found, cancel, node).layers()
            image = self.keep()
        except PipeError as error:
            outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.ERROR
            emit(Finished(node=node, outcome=outcome, error=error.message))
            raise
        emit(Finished(node=node, outcome=Outcome.DONE, detail=image.short_id))
        return image

    def bring_blob(self, digest: Digest, node: str, cancel: Cancel | None = None) -> None:
        """Fetch one layer's blob, not unpacked."""
        cancel = cancel or self._cancel
        position = next(n for n, blob in enumerate(self.layers) if blob.digest == digest)
        with connected(self._transport, self.reference, cancel) as client:
            Fetch(self._images, client, self._found, cancel, node).blob(position)


class Elsewhere:
    """Which layers can be had from which remote image, as far as this process knows."""

    def __init__(self) -> None:
        self._by_diff_id: dict[Digest, tuple[Descriptor, RemoteImage]] = {}
        self._by_blob: dict[Digest, list[RemoteImage]] = {}
        self._lock = threading.Lock()

    def add(self, remote: RemoteImage) -> None:
        with self._lock:
            for diff_id, blob in zip(remote.image.diff_ids, remote.layers, strict=True):
                self._by_diff_id.setdefault(diff_id, (blob, remote))
                self._by_blob.setdefault(blob.digest, []).append(remote)

    def form(self, diff_id: Digest) -> Descriptor | None:
        """The blob a layer is known as at some registry."""
        known = self._by_diff_id.get(diff_id)
        return None if known is None else known[0]

    def bring(self, blob: Digest, node: str, cancel: Cancel | None = None) -> bool:
        """Have a blob in the store that some image here has; False when none does."""
        holders = self.holders(blob)
        if holders:
            holders[0].bring_blob(blob, node, cancel)
        return bool(holders)

    def holders(self, blob: Digest) -> tuple[RemoteImage, ...]:
        """The images whose repositories have a blob."""
        return tuple(self._by_blob.get(blob, ()))
