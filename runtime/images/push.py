"""Bring an image to a registry (FEATURES C-17): blobs five at a time, the manifest last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    from runtime.images.images import Images

_BLOBS_AT_ONCE = 5


def push(
    images: Images, image: Image, reference: Reference, compression: str, cancel: Cancel | None
) -> Descriptor:
    """Push; the descriptor of the manifest that the registry now has under the reference's tag."""
    with _told(images, reference) as node:
        manifest = images.manifest(image, compression, cancel)
        with connected(images.transport, reference, cancel) as client:
            _Push(images, client, image, reference, cancel or Cancel(), node).run((manifest,), manifest)
    images.records.put_manifest(image.id, manifest.digest, manifest.media_type, reference.name)
    images.announce(image.id, "push", name=reference.familiar)
    images.emit(Finished(node=node, outcome=Outcome.DONE, detail=manifest.digest))
    return manifest.descriptor


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
    with _told(images, reference) as node:
        first = next(iter(parcel.images.values()))
        with connected(images.transport, reference, cancel) as client:
            _Push(images, client, first, reference, cancel or Cancel(), node).run(
                parcel.manifests, parcel.top
            )
    for digest, image in parcel.images.items():
        manifest = next(each for each in parcel.manifests if each.digest == digest)
        images.records.put_manifest(image.id, digest, manifest.media_type, reference.name)
        images.records.put_manifest(image.id, parcel.top.digest, parcel.top.media_type, reference.name)
        images.announce(image.id, "push", name=reference.familiar)
    images.emit(Finished(node=node, outcome=Outcome.DONE, detail=parcel.top.digest))
    return parcel.top.descriptor


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


class _Push:
    def __init__(
        self, images: Images, client: Client, image: Image, reference: Reference, cancel: Cancel, node: str
    ) -> None:
        self._images, self._client, self._image = images, client, image
        self._reference, self._cancel, self._node = reference, cancel, node

    def run(self, manifests: Iterable[Manifest], top: Manifest | Index) -> None:
        """The blobs of all, then the manifests by digest, then what the reference shall name."""
        manifests = list(manifests)
        self._blobs([blob for each in manifests for blob in (*each.layers, each.config)])
        for each in manifests:
            if each.digest != top.digest:
                self._cancel.check()
                self._client.put_manifest(self._reference.path, each.digest, each.raw, each.media_type)
        self._client.put_manifest(self._reference.path, self._reference.selector, top.raw, top.media_type)

    def _blobs(self, all_blobs: Iterable[Descriptor]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        blobs = list({each.digest: each for each in all_blobs}.values())
        stop = Cancel()
        stopping = self._cancel.on_cancel(lambda: stop.cancel(self._cancel.reason))
        with stopping, ThreadPoolExecutor(_BLOBS_AT_ONCE, thread_name_prefix="push") as pool:
            jobs = [pool.submit(self._send, blob, stop) for blob in blobs]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                stop.cancel("another blob of the image failed")
                raise

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
