"""Bring an image to a registry (FEATURES C-17): blobs five at a time, as soon as each is there, the manifest last."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Index, Manifest
from registry_client.reference import Reference, parse_reference
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.errors import Cancelled, PipeError
from runtime.events import Finished, Outcome, Started
from runtime.images.image import Image
from runtime.images.progress import Reporter
from runtime.images.transport import Client, connected

if TYPE_CHECKING:
    from concurrent.futures import Future

    from runtime.images.images import Images

_BLOBS_AT_ONCE = 5


def push(
    images: Images, image: Image, reference: Reference, compression: str, cancel: Cancel | None
) -> Descriptor:
    """Push; the descriptor of the manifest that the registry now has under the reference's tag."""
    with pushing(images, image, reference, cancel) as sending:
        manifest = images.manifest(image, compression, sending.stop, sending.send)
        return sending.finish(Parcel(manifest, (manifest,), {manifest.digest: image}))


@frozen
class Parcel:
    """Manifests whose blobs are in the store, under one `top`: an index of them, or the only one of them itself.

    `images` says which manifest is whose; attestations are nobody's.
    """

    top: Manifest | Index
    manifests: tuple[Manifest, ...]
    images: Mapping[Digest, Image]


def push_parcel(images: Images, parcel: Parcel, reference: Reference, cancel: Cancel | None) -> Descriptor:
    """Push all of it; the reference then names the top. A reference with a digest pushes without a tag."""
    with pushing(images, next(iter(parcel.images.values())), reference, cancel) as sending:
        return sending.finish(parcel)


@contextmanager
def pushing(images: Images, image: Image, reference: Reference, cancel: Cancel | None) -> Iterator[Push]:
    """A push whose blobs may go as soon as they are there, while others are still being made. `finish` ends it."""
    with (
        _told(images, reference) as node,
        connected(images.transport, reference, cancel) as client,
        Push(images, client, image, reference, cancel or Cancel(), node) as sending,
    ):
        yield sending


@contextmanager
def _told(images: Images, reference: Reference) -> Iterator[str]:
    """Tell of a push that begins, and of one that fails."""
    node = f"push/{reference.familiar}"
    images.emit(Started(node=node, name=f"push {reference.familiar}"))
    try:
        yield node
    except PipeError as error:
        outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.ERROR
        images.emit(Finished(node=node, outcome=outcome, error=error.message))
        raise


class Push:
    """One push. The first blob that fails stops the others and, by the token `stop`, whoever makes more of them."""

    def __init__(
        self, images: Images, client: Client, image: Image, reference: Reference, cancel: Cancel, node: str
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._images, self._client, self._image = images, client, image
        self._reference, self._cancel, self._node = reference, cancel, node
        self._pool = ThreadPoolExecutor(_BLOBS_AT_ONCE, thread_name_prefix="push")
        self._jobs: dict[Digest, Future[None]] = {}
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._held = ExitStack()
        self.stop = Cancel()

    def __enter__(self) -> Push:
        self._held.enter_context(self._cancel.on_cancel(lambda: self.stop.cancel(self._cancel.reason)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop.cancel("the push failed")
        self._pool.shutdown()
        self._held.close()
        if self._failure is not None and error is not self._failure:
            raise self._failure

    def send(self, blob: Descriptor) -> None:
        """Have a blob that is in the store sent, once, at some time from now on. From any thread."""
        with self._lock:
            if blob.digest not in self._jobs:
                self._jobs[blob.digest] = self._pool.submit(self._try_to_send, blob)

    def _try_to_send(self, blob: Descriptor) -> None:
        try:
            self._send(blob, self.stop)
        except BaseException as error:
            with self._lock:
                if self._failure is None and not self.stop.cancelled:
                    self._failure = error
            self.stop.cancel("another blob of the image failed")
            raise

    def finish(self, parcel: Parcel, reference: Reference | None = None) -> Descriptor:
        """The blobs of all that were not sent yet, the manifests by digest, then what the reference shall name.

        `reference` may add to the one the push began with what was not known then, a digest.
        """
        reference = reference or self._reference
        for manifest in parcel.manifests:
            for blob in (*manifest.layers, manifest.config):
                self.send(blob)
        for job in list(self._jobs.values()):
            job.result()
        for manifest in parcel.manifests:
            if manifest.digest != parcel.top.digest:
                self._put(manifest.digest, manifest)
        self._put(reference.selector, parcel.top)
        self._record(parcel, reference)
        return parcel.top.descriptor

    def _put(self, selector: str, manifest: Manifest | Index) -> None:
        self._cancel.check()
        self._client.put_manifest(self._reference.path, selector, manifest.raw, manifest.media_type)

    def _record(self, parcel: Parcel, reference: Reference) -> None:
        images, top = self._images, parcel.top
        for digest, image in parcel.images.items():
            manifest = next(each for each in parcel.manifests if each.digest == digest)
            # One of eStargz layers has a config, and so an image, of its own: ours is not known by it.
            known = dict.fromkeys((manifest, top)) if manifest.config.digest == image.id else ()
            for each in known:
                images.records.put_manifest(image.id, each.digest, each.media_type, reference.name)
            images.announce(image.id, "push", name=reference.familiar)
        images.emit(Finished(node=self._node, outcome=Outcome.DONE, detail=top.digest))

    def _send(self, blob: Descriptor, cancel: Cancel) -> None:
        def open_at(offset: int) -> BinaryIO:
            if not self._images.store.content.has(blob.digest):
                # Of a base that was never fetched, and could not be mounted.
                self._images.elsewhere.bring(blob.digest, self._node, cancel)
            file = self._images.store.content.open(blob.digest)
            file.seek(offset)
            return file

        report = Reporter(self._images.emit, self._node, blob)

        def sent(current: int) -> None:
            cancel.check()
            report.at(current)

        cancel.check()
        mount_from = self._repository_that_has(blob)
        self._client.push_blob(self._reference.path, blob, open_at, mount_from=mount_from, progress=sent)
        report.done()

    def _repository_that_has(self, blob: Descriptor) -> str:
        """Another repository of the same registry that this image, or one with the same layer, came from or went to."""
        images = self._images
        names = [each.reference.name for each in images.elsewhere.holders(blob.digest)]
        names += images.records.repositories_of(blob.digest) + list(self._image.repo_digests)
        for name in names:
            known = parse_reference(name)
            if known.domain == self._reference.domain and known.path != self._reference.path:
                return known.path
        return ""
