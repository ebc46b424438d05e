"""The layers of an image that was looked up: downloaded a few at a time, unpacked in order while they come.

What was begun and not ended leaves partial files that the next fetch continues, and no image: nothing gets a name before
all of it is here and every layer gave its diff_id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from registry_client.oci import media_types
from registry_client.oci.manifest import Index
from runtime.cancel import Cancel
from runtime.errors import Cancelled, HostFault, InvalidInput, NotFound, PipeError, Unavailable
from runtime.images.arrivals import Arrival, Restarted
from runtime.images.progress import Reporter
from runtime.images.transport import break_off, in_our_words
from runtime.images.variants import note_index

if TYPE_CHECKING:
    from registry_client.oci.digest import Digest
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.images.lookup import Found
    from runtime.images.transport import Client

LAYERS_AT_ONCE = 3


class Fetch:
    """The layers of one image. `client` is nobody else's (`of_its_own`): when a layer fails, the others are broken off.

    Progress is told of `node`, one item for each blob.
    """

    def __init__(self, images: Images, client: Client, found: Found, cancel: Cancel, node: str) -> None:
        self._images, self._client, self._found = images, client, found
        self._cancel, self._node = cancel, node

    def layers(self) -> None:
        """Have every layer as a blob and unpacked."""
        from concurrent.futures import ThreadPoolExecutor

        stop = Cancel()
        stopping = self._cancel.on_cancel(lambda: stop.cancel(self._cancel.reason))
        arrivals = [Arrival(self._images.store, layer) for layer in self._found.manifest.layers]
        with stopping, ThreadPoolExecutor(LAYERS_AT_ONCE, thread_name_prefix="pull") as pool:
            for arrival in arrivals:
                pool.submit(self._run, arrival, stop)
            try:
                for position, arrival in enumerate(arrivals):
                    self._unpack(arrival, position)
            except BaseException:
                stop.cancel("another layer of the image failed")
                break_off(self._client)  # one that hangs would keep us for minutes
                raise

    def blob(self, position: int) -> None:
        """Have one layer as a blob, not unpacked."""
        arrival = Arrival(self._images.store, self._found.manifest.layers[position])
        self._run(arrival, self._cancel)
        self._wait(arrival, position)
        self._keep(position, verified=False)

    def _run(self, arrival: Arrival, cancel: Cancel) -> None:
        report = Reporter(self._images.emit, self._node, arrival.blob)
        arrival.run(self._client, self._found.reference, cancel, report)

    def _unpack(self, arrival: Arrival, position: int) -> None:
        unpacker, diff_ids = self._images.unpacker, self._found.config.diff_ids[: position + 1]
        name, read = f"layer {arrival.blob.digest}", False

        def opened() -> BinaryIO:
            nonlocal read
            read = True
            return arrival.open()

        try:
            unpacker.layer(diff_ids, opened, name, self._cancel)
        except Restarted:
            self._wait(arrival, position)
            unpacker.layer(diff_ids, opened, name, self._cancel)
        except (Cancelled, HostFault):
            raise
        except Exception:
            self._wait(arrival, position)  # what is wrong with the transfer says more than what came of it
            raise
        self._wait(arrival, position)
        self._keep(position, verified=read)

    def _keep(self, position: int, *, verified: bool) -> None:
        """Record the blob as a form of its layer, once it is known to be that: others take it for the layer then."""
        blob, diff_id = self._found.manifest.layers[position], self._found.config.diff_ids[position]
        if blob.digest in {form.digest for form in self._images.records.layer_forms(diff_id)}:
            return
        if not verified:
            self._images.unpacker.verify(diff_id, blob.digest, self._cancel)
        kind = media_types.compression_of(blob.media_type) or ""
        self._images.records.put_layer(diff_id, kind, blob.digest, blob.size)

    def _wait(self, arrival: Arrival, position: int) -> None:
        """Until the blob is here; its error says which layer of which image it was."""
        try:
            arrival.wait()
        except Exception as error:
            self._cancel.check()
            ours = in_our_words(error)
            if ours is None:
                raise
            raise _named(ours, self._found, arrival.blob.digest, position) from error


def _named(error: PipeError, found: Found, digest: Digest, position: int) -> PipeError:
    name, count = found.reference, len(found.manifest.layers)
    hint = error.hint
    if isinstance(error, NotFound):
        hint = f"{name.domain} may have replaced the image: pull {name.familiar} again, or build with --pull"
    elif isinstance(error, Unavailable):
        hint = f"what has come is kept: try again when {name.domain} answers" + (f"; {hint}" if hint else "")
    elif not isinstance(error, InvalidInput):
        return error
    message = f"layer {position + 1} of {count} of {name.familiar} ({digest}): {error.message}"
    return type(error)(message, error.span, hint=hint)


def record(images: Images, found: Found) -> Image:
    """Name an image all of whose layers are here; from now on it is one of the store's."""
    name = found.reference
    with images.store.db.transaction():
        image_id = images.records.put(found.raw_config, durable=True)
        for known in found.known_by:
            images.records.put_manifest(image_id, known.digest, known.media_type, name.name)
        if name.tag:
            tag = str(name.with_tag(name.tag))
            images.records.set_tag(tag, image_id)
            if isinstance(found.top, Index):
                note_index(images, found.top, tag)
    images.announce(image_id, "pull", name=name.familiar)
    return images.get(image_id)
