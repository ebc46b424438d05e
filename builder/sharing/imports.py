"""Records and layers from elsewhere (`--cache-from`): looked at when a step is not found here, fetched when needed.

Opened at the first miss: manifest and config of every place, in the order they were given. A step that is found gets a
root without files; the files come when somebody works on it or it is part of the result. A place that does not answer, is
damaged or lacks a layer is a warning: `ImportFailed` makes the build start over without what failed, and it finds here
what was done meanwhile. Whoever may write to a place decides what the steps yield, as with any shared cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.sharing.form import CONFIG_LIMIT, SharedCache, SharedRecord, parse_cache
from builder.sharing.places import DirectoryPlace, Place, opened_registry, read_blob
from builder.sharing.wanted import CacheFrom
from builder.trees import ImportFailed
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, chain_ids
from registry_client.oci.media_types import compression_of
from runtime.cancel import Cancel
from runtime.errors import Cancelled, InvalidInput, PipeError
from runtime.events import Emit, Finished, Outcome, Started, Warned
from runtime.store.locks import lock

if TYPE_CHECKING:
    from builder.state import RootState
    from runtime.images.images import Images

_LAYERS_AT_ONCE = 3


@contextmanager
def opened_place(images: Images, source: CacheFrom, cancel: Cancel) -> Iterator[Place]:
    """Where a source leads to, for reading."""
    if source.type == "local":
        yield DirectoryPlace(source.place, source.tag, source.digest, cancel=cancel)
        return
    with opened_registry(images.transport, source.place, cancel) as place:
        yield place


class Imports:
    """The sources of one build. Used by many threads."""

    def __init__(
        self, images: Images, sources: Sequence[CacheFrom], emit: Emit, cancel: Cancel, node: str
    ) -> None:
        self._images, self._sources = images, tuple(sources)
        self._emit, self._cancel, self._node = emit, cancel, node
        self._lock = threading.RLock()
        self._opened = False
        self._with_layers_only = False
        self._records: dict[str, SharedRecord] = {}
        self._shapes: set[str] = set()
        self._contents: dict[tuple[str, str], str] = {}
        self._layers: dict[Digest, list[tuple[CacheFrom, Descriptor]]] = {}

    # --- finding --------------------------------------------------------------------------------------------------

    def may_hit(self, shape: str) -> bool:
        """False when no record has this shape."""
        self._open()
        return shape in self._shapes

    def find(self, key: str) -> SharedRecord | None:
        self._open()
        record = self._records.get(key)
        if record is None or not record.diff_id or not self._with_layers_only:
            return record
        return record if record.diff_id in self._layers else None

    def nearest(self, kind: str, place: str) -> SharedRecord | None:
        """The newest record of a step in this place of the Dockerfile: what a step that ran is compared with."""
        self._open()
        found = [each for each in self._records.values() if (each.kind, each.place) == (kind, place)]
        return max(found, key=lambda each: each.made, default=None)

    def content_digest(self, chain: str, selector: str) -> str | None:
        self._open()
        return self._contents.get((chain, selector))

    def layer(self, diff_id: Digest) -> Descriptor | None:
        """The layer's blob as it is elsewhere."""
        found = self._layers.get(diff_id)
        return found[0][1] if found else None

    def _open(self) -> None:
        with self._lock:
            if self._opened:
                return
            self._opened = True
            for number, source in enumerate(self._sources, 1):
                self._open_source(source, f"{self._node}/cache-from-{number}")

    def _open_source(self, source: CacheFrom, node: str) -> None:
        self._emit(Started(node=node, name=f"import cache from {source.name}", parent=self._node))
        try:
            caches = self._read(source)
        except Cancelled:
            self._emit(Finished(node=node, outcome=Outcome.CANCELLED))
            raise
        except PipeError as error:
            self._emit(Finished(node=node, outcome=Outcome.WARNING, error=error.message))
            self._warn(f"no cache from {source.name}: {error.message}")
            return
        for cache in caches:
            self._add(source, cache)
        self._emit(
            Finished(
                node=node,
                outcome=Outcome.DONE,
                detail=f"{sum(len(cache.records) for cache in caches)} records",
            )
        )

    def _read(self, source: CacheFrom) -> list[SharedCache]:
        """The caches under a name: one, or those of an image for several platforms."""
        found = []
        with opened_place(self._images, source, self._cancel) as place:
            for manifest in place.manifests():
                raw = read_blob(place, manifest.config, CONFIG_LIMIT)
                try:
                    cache = parse_cache(raw, manifest)
                except ValueError as error:
                    raise InvalidInput(str(error)) from error
                if cache is not None:
                    found.append(cache)
        if not found:
            raise InvalidInput(
                "it is an image without cache records", hint="build it with --cache-to type=inline"
            )
        return found

    def _add(self, source: CacheFrom, cache: SharedCache) -> None:
        for record in cache.records:
            self._records.setdefault(record.key, record)
            self._shapes.add(record.shape)
        for each in cache.contents:
            self._contents.setdefault((each.chain_id, each.selector), each.digest)
        for diff_id, descriptor in cache.layers.items():
            self._layers.setdefault(diff_id, []).append((source, descriptor))

    def _warn(self, message: str) -> None:
        self._emit(Warned(node=self._node, message=message))

    # --- fetching -------------------------------------------------------------------------------------------------

    def snapshot(self, diff_ids: tuple[Digest, ...], base: RootState, cancel: Cancel) -> str | None:
        """The files of a root that was found on `base`: what is missing is fetched and unpacked."""
        wanted = self._missing(diff_ids, len(base.diff_ids()))
        self._fetch(wanted, cancel)
        base.snapshot()  # comes from its own registry
        try:
            return self._images.unpack(diff_ids, cancel)
        except InvalidInput as error:
            # A blob that is not the layer it was said to be must not be taken for it later.
            self._forget(wanted)
            raise self._failed(f"a layer from the cache is damaged: {error.message}") from error

    def blob(self, diff_id: Digest, cancel: Cancel) -> None:
        """One layer that was found, as a blob."""
        blob = self.fetch(diff_id, cancel)
        try:
            self._images.unpacker.verify(diff_id, blob.digest, cancel)
        except InvalidInput as error:
            self._forget([diff_id])
            raise self._failed(f"a layer from the cache is damaged: {error.message}") from error

    def _missing(self, diff_ids: tuple[Digest, ...], below: int) -> list[Digest]:
        """Layers above the first `below` whose files are not here, neither unpacked nor as a blob."""
        from runtime.images.blobs import kept_forms

        chain, missing = chain_ids(diff_ids), []
        for position in range(len(diff_ids) - 1, below - 1, -1):
            if self._images.store.snapshots.by_chain(chain[position]) is not None:
                break
            if not kept_forms(self._images, diff_ids[position]):
                missing.append(diff_ids[position])
        return missing

    def _fetch(self, wanted: Sequence[Digest], cancel: Cancel) -> None:
        from concurrent.futures import ThreadPoolExecutor

        if not wanted:
            return
        with ThreadPoolExecutor(_LAYERS_AT_ONCE, thread_name_prefix="import") as pool:
            jobs = [pool.submit(self.fetch, diff_id, cancel) for diff_id in wanted]
            for job in jobs:
                job.result()

    def fetch(self, diff_id: Digest, cancel: Cancel) -> Descriptor:
        """Get a layer's blob into the store, from the first place that gives it."""
        for source, descriptor in tuple(self._layers.get(diff_id, ())):
            try:
                self._download(source, diff_id, descriptor, cancel)
            except Cancelled:
                raise
            except PipeError as error:
                self._warn(f"the cache of {source.name} is left out: {error.message}")
                self._drop(source)
            else:
                return descriptor
        raise self._failed("")

    def _download(self, source: CacheFrom, diff_id: Digest, blob: Descriptor, cancel: Cancel) -> None:
        store = self._images.store
        kind = compression_of(blob.media_type)
        if kind is None:
            raise InvalidInput(f"blob {blob.digest} is no layer but {blob.media_type!r}")
        with lock(store.root, f"blob {blob.digest}", cancel):
            store.leases.keep("blob", blob.digest)
            if not store.content.has(blob.digest):
                with (
                    store.content.writer(blob.digest, blob.size) as writer,
                    opened_place(self._images, source, cancel) as place,
                    place.blob(blob) as chunks,
                ):
                    for chunk in chunks:
                        cancel.check()
                        writer.write(chunk)
                    writer.commit()
        self._images.records.put_layer(diff_id, kind, blob.digest, blob.size)

    def _forget(self, wanted: Sequence[Digest]) -> None:
        blobs = [(blob.digest,) for diff_id in wanted for _, blob in self._layers.get(diff_id, ())]
        with self._images.store.db.transaction() as connection:
            connection.executemany("DELETE FROM layers WHERE digest = ?", blobs)
        for diff_id in wanted:
            self._layers.pop(diff_id, None)

    def _drop(self, source: CacheFrom) -> None:
        """Offer nothing more from a source that failed us."""
        with self._lock:
            for diff_id, places in list(self._layers.items()):
                left = [each for each in places if each[0] != source]
                if left:
                    self._layers[diff_id] = left
                else:
                    self._layers.pop(diff_id)

    def _failed(self, message: str) -> ImportFailed:
        """From now on only steps are found whose files can be had."""
        self._with_layers_only = True
        if message:
            self._warn(message)
        return ImportFailed(message)
