"""Get an image from a registry (FEATURES C-16): index, manifest for the platform, config, layers three at a time.

Layers are unpacked in order as they arrive. Every blob is verified against digest and size while it streams; a broken
transfer goes on where it stopped, also in a later process. Nothing gets a name before all of it is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_client.oci import media_types
from registry_client.oci.config import parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Index, Manifest, parse_manifest
from registry_client.oci.platform import Platform
from registry_client.reference import Reference
from runtime.cancel import Cancel
from runtime.errors import Cancelled, InvalidInput, NotFound, PipeError, Unsupported
from runtime.events import Finished, Outcome, Started
from runtime.images.image import Image
from runtime.images.progress import Reporter
from runtime.images.transport import Client, connected
from runtime.store.locks import lock

if TYPE_CHECKING:
    from runtime.images.images import Images
    from runtime.store.content import Writer

_LAYERS_AT_ONCE = 3
_CONFIG_LIMIT = 8 << 20


def pull(images: Images, reference: Reference, platform: Platform, cancel: Cancel | None) -> Image:
    """Pull `reference` for `platform` and unpack it; the image, which then has the reference's tag."""
    node = f"pull/{reference.familiar}"
    images.emit(Started(node=node, name=f"pull {reference.familiar}"))
    try:
        with connected(images.transport, reference, cancel) as client:
            image = _Pull(images, client, reference, platform, cancel or Cancel(), node).run()
    except PipeError as error:
        outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.ERROR
        images.emit(Finished(node=node, outcome=outcome, error=error.message))
        raise
    images.emit(Finished(node=node, outcome=Outcome.DONE, detail=image.short_id))
    return image


class _Pull:
    def __init__(
        self,
        images: Images,
        client: Client,
        reference: Reference,
        platform: Platform,
        cancel: Cancel,
        node: str,
    ) -> None:
        self._images, self._client, self._reference = images, client, reference
        self._platform, self._cancel, self._node = platform, cancel, node
        self._store, self._records = images.store, images.records
        self._known: list[Descriptor] = []  # the index and the manifest, by which the image is known

    def run(self) -> Image:
        manifest = self._manifest()
        raw_config = self._config(manifest)
        diff_ids = parse_config(raw_config).diff_ids
        if len(diff_ids) != len(manifest.layers):
            text = f"{len(manifest.layers)} layers in the manifest, {len(diff_ids)} in the config"
            raise InvalidInput(f"{self._reference.familiar} is inconsistent: {text}")
        for layer in manifest.layers:
            if media_types.compression_of(layer.media_type) is None:
                raise Unsupported(f"{self._reference.familiar} has a layer of type {layer.media_type!r}")
        self._layers(manifest, diff_ids)
        return self._record(raw_config, manifest)

    # --- manifest and config --------------------------------------------------------------------------------------

    def _manifest(self) -> Manifest:
        found = self._fetch(self._reference.selector, "")
        for _ in range(4):
            if isinstance(found, Manifest):
                if found.config.media_type not in media_types.CONFIGS:
                    raise InvalidInput(
                        f"{self._reference.familiar} is no image but {found.artifact_type or found.config.media_type}"
                    )
                return found
            found = self._fetch(*self._chosen(found))
        raise InvalidInput(f"{self._reference.familiar} has indexes nested too deeply")

    def _chosen(self, index: Index) -> tuple[str, str]:
        entry = index.choose(self._platform)
        if entry is None:
            platforms = sorted({str(each.platform) for each in index.manifests if each.platform})
            offered = ", ".join(each for each in platforms if not each.startswith("unknown"))
            raise NotFound(
                f"{self._reference.familiar} has no image for {self._platform}",
                hint=f"it has {offered or 'none at all'}",
            )
        return entry.digest, entry.media_type

    def _fetch(self, selector: str, media_type: str) -> Manifest | Index:
        raw, sent, digest = self._manifest_bytes(selector, media_type)
        try:
            found = parse_manifest(raw, sent)
        except ValueError as error:
            raise InvalidInput(f"manifest of {self._reference.familiar}: {error}") from error
        self._known.append(Descriptor(found.media_type, digest, len(raw)))
        return found

    def _manifest_bytes(self, selector: str, media_type: str) -> tuple[bytes, str, Digest]:
        self._cancel.check()
        if ":" in selector and self._is_here(Digest(selector)):
            return self._store.content.read(Digest(selector)), media_type, Digest(selector)
        raw, sent, digest = self._client.manifest(self._reference.path, selector)
        self._store.leases.keep("blob", digest)
        with self._store.content.writer(digest, len(raw)) as writer:
            writer.write(raw)
            writer.commit()
        return raw, sent, digest

    def _is_here(self, digest: Digest) -> bool:
        # Leased first, so that what is found is not collected afterwards.
        self._store.leases.keep("blob", digest)
        return self._store.content.has(digest)

    def _config(self, manifest: Manifest) -> bytes:
        if manifest.config.size > _CONFIG_LIMIT:
            raise InvalidInput(
                f"{self._reference.familiar} has a config of {manifest.config.size} bytes, more than {_CONFIG_LIMIT}"
            )
        self._download(manifest.config)
        raw = self._store.content.read(manifest.config.digest, _CONFIG_LIMIT)
        try:
            parse_config(raw)
        except ValueError as error:
            raise InvalidInput(f"config of {self._reference.familiar}: {error}") from error
        return raw

    # --- layers ---------------------------------------------------------------------------------------------------

    def _layers(self, manifest: Manifest, diff_ids: tuple[Digest, ...]) -> None:
        """Download in parallel, unpack in order."""
        from concurrent.futures import ThreadPoolExecutor

        stop = Cancel()
        stopping = self._cancel.on_cancel(lambda: stop.cancel(self._cancel.reason))
        with stopping, ThreadPoolExecutor(_LAYERS_AT_ONCE, thread_name_prefix="pull") as pool:
            jobs = [pool.submit(self._download, layer, stop) for layer in manifest.layers]
            try:
                for position, (job, layer) in enumerate(zip(jobs, manifest.layers)):
                    job.result()
                    kind = media_types.compression_of(layer.media_type) or ""
                    self._records.put_layer(diff_ids[position], kind, layer.digest, layer.size)
                    self._images.unpack(diff_ids[: position + 1], self._cancel)
            except BaseException:
                stop.cancel("another layer of the image failed")
                raise

    def _download(self, blob: Descriptor, cancel: Cancel | None = None) -> None:
        """Get a blob, unless it is here; another process that gets the same one is waited for."""
        cancel = cancel or self._cancel
        cancel.check()
        report = Reporter(self._images.emit, self._node, blob)
        if not self._is_here(blob.digest):
            with lock(self._store.root, f"blob {blob.digest}", cancel):
                if not self._store.content.has(blob.digest):
                    self._transfer(blob, cancel, report)
        report.done()

    def _transfer(self, blob: Descriptor, cancel: Cancel, report: Reporter) -> None:
        with self._store.content.writer(blob.digest, blob.size, resume_key=blob.digest) as writer:
            resumed = writer.offset > 0
            self._receive(blob, writer, cancel, report)
            try:
                writer.commit()
            except InvalidInput:
                if not resumed:
                    raise
                # What an earlier process left was not what it should be (a power loss may do that): all anew.
                writer.restart()
                self._receive(blob, writer, cancel, report)
                writer.commit()

    def _receive(self, blob: Descriptor, writer: Writer, cancel: Cancel, report: Reporter) -> None:
        # The writer hashes anyway; the client need not.
        with self._client.blob(
            self._reference.path,
            blob.digest,
            offset=writer.offset,
            size=blob.size,
            urls=blob.urls,
            verify=False,
        ) as chunks:
            for chunk in chunks:
                cancel.check()
                writer.write(chunk)
                report.at(writer.offset)

    # --- the end --------------------------------------------------------------------------------------------------

    def _record(self, raw_config: bytes, manifest: Manifest) -> Image:
        images, name = self._images, self._reference
        with self._store.db.transaction():
            image_id = self._records.put(raw_config, durable=True)
            for known in self._known:
                self._records.put_manifest(image_id, known.digest, known.media_type, name.name)
            if name.tag:
                self._records.set_tag(str(name.with_tag(name.tag)), image_id)
        images.announce(image_id, "pull", name=name.familiar)
        return images.get(image_id)
