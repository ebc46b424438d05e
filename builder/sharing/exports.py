"""Give records and layers to elsewhere (`--cache-to`): gathered when a graph is solved, written when the build is done.

All steps are named, so that a build elsewhere finds them; whose layers go along is the mode's business: those of the
result (min), or of all stages (max). A layer that was itself found elsewhere and is there already is not moved again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from builder.cache import Cache, fields_of
from builder.graph import Vertex
from builder.lines import lines_of
from builder.sharing.form import (
    CONFIG_TYPE,
    INLINE_KEY,
    SharedContent,
    SharedRecord,
    dump_config,
    dump_records,
)
from builder.sharing.places import DirectoryPlace, Place, opened_registry
from builder.sharing.wanted import CacheTo
from builder.solver import reachable
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.manifest import canonical_json, make_manifest
from runtime.cancel import Cancel
from runtime.errors import Cancelled, PipeError
from runtime.events import Emit, Finished, Outcome, Started, Warned
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.sharing.imports import Imports
    from runtime.images.images import Images

_LAYERS_AT_ONCE = 4
_FILES_TOLD = 1000  # of one step: the config is fetched by every build


@dataclass(frozen=True, slots=True)
class Gathered:
    """The records of solved graphs, inputs before users; `result` are the keys of those whose layers are in an image."""

    records: tuple[SharedRecord, ...] = ()
    contents: tuple[SharedContent, ...] = ()
    result: frozenset[str] = frozenset()

    def joined(self, other: Gathered) -> Gathered:
        """Those of two platforms."""
        records = {record.key: record for record in (*self.records, *other.records)}
        contents = dict.fromkeys((*self.contents, *other.contents))
        return Gathered(tuple(records.values()), tuple(contents), self.result | other.result)


def gather(
    store: Store, cache: Cache, imports: Imports | None, root: Vertex, keys: Mapping[Digest, str]
) -> Gathered:
    """What is known of a solved graph. `keys` are the keys of its vertices."""
    records: dict[str, SharedRecord] = {}
    for vertex in reachable([root]):
        key = keys.get(vertex.digest)
        if key is None:
            continue
        record = _record(store, key)
        if record is None and imports is not None:
            record = imports.find(key)
        if record is not None:
            records[record.key] = record
    line = set()
    at: Vertex | None = root
    while at is not None:
        line.add(keys.get(at.digest, ""))
        at = at.inputs[0] if at.inputs else None
    contents = tuple(SharedContent(*each, digest) for each, digest in cache.contents.items())
    return Gathered(tuple(records.values()), contents, frozenset(line & records.keys()))


def _record(store: Store, key: str) -> SharedRecord | None:
    row = store.db.one("SELECT * FROM cache_records WHERE key = ?", (key,))
    if row is None:
        return None
    return SharedRecord(
        key=row["key"],
        shape=row["shape"],
        kind=row["kind"],
        label=row["label"],
        root=row["parent"],
        diff_id=row["diff_id"],
        chain_id=row["chain_id"],
        made=row["made"],
        size=row["size"],
        fields=fields_of(row),
        files=_files(store, key),
    )


def _files(store: Store, key: str) -> tuple[str, ...]:
    lines = lines_of(store.db, key)
    return tuple(lines) if len(lines) <= _FILES_TOLD else ()


def with_inline_cache(config: bytes, gathered: Gathered) -> bytes:
    """An image's config that carries the records."""
    record = json.loads(config)
    # Every container's start reads the config: the lists of files stay away.
    told = [replace(each, files=()) for each in gathered.records]
    record[INLINE_KEY] = dump_records(told, gathered.contents)
    return canonical_json(record)


# --- writing ------------------------------------------------------------------------------------------------------


def export_cache(
    images: Images,
    imports: Imports | None,
    wanted: Sequence[CacheTo],
    gathered: Gathered,
    emit: Emit,
    cancel: Cancel,
    node: str,
) -> None:
    """Write the cache wherever it is wanted. An error is one, unless the flag said to ignore it."""
    for number, target in enumerate((each for each in wanted if each.type != "inline"), 1):
        name = f"{node}/cache-to-{number}"
        emit(Started(node=name, name=f"export cache to {target.name}", parent=node))
        try:
            digest = _Export(images, imports, target, cancel).run(gathered)
        except PipeError as error:
            cancelled = isinstance(error, Cancelled)
            ignored = target.ignore_error and not cancelled
            outcome = Outcome.CANCELLED if cancelled else Outcome.WARNING if ignored else Outcome.ERROR
            emit(Finished(node=name, outcome=outcome, error=error.message))
            if not ignored:
                raise
            emit(Warned(node=node, message=f"no cache to {target.name}: {error.message}"))
        else:
            emit(Finished(node=name, outcome=Outcome.DONE, detail=digest))


class _Export:
    """One export on its way."""

    def __init__(self, images: Images, imports: Imports | None, target: CacheTo, cancel: Cancel) -> None:
        self._images, self._imports, self._target, self._cancel = images, imports, target, cancel

    def run(self, gathered: Gathered) -> Digest:
        if self._target.type == "local":
            target = self._target
            return self._write(
                DirectoryPlace(target.place, target.tag, cancel=self._cancel, reset=target.reset), gathered
            )
        with opened_registry(self._images.transport, self._target.place, self._cancel) as place:
            return self._write(place, gathered)

    def _write(self, place: Place, gathered: Gathered) -> Digest:
        chosen = self._chosen(gathered)
        sent = dict(zip((record.diff_id for record in chosen), self._send_all(place, chosen), strict=True))
        layers = {diff_id: blob for diff_id, blob in sent.items() if blob is not None}
        raw = dump_config(gathered.records, gathered.contents, tuple(layers))
        config = Descriptor(CONFIG_TYPE, digest_of(raw), len(raw))
        place.put(config, lambda offset: io.BytesIO(raw[offset:]))
        manifest = make_manifest(config, tuple(layers.values()))
        place.name(manifest)
        return manifest.digest

    def _chosen(self, gathered: Gathered) -> list[SharedRecord]:
        """The records whose layers go along, one for each layer."""
        wanted: Iterable[SharedRecord] = gathered.records
        if not self._target.everything:
            wanted = (record for record in wanted if record.key in gathered.result)
        return list({record.diff_id: record for record in wanted if record.diff_id}.values())

    def _send_all(self, place: Place, records: Sequence[SharedRecord]) -> list[Descriptor | None]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_LAYERS_AT_ONCE, thread_name_prefix="export") as pool:
            jobs = [pool.submit(self._send, place, record) for record in records]
            return [job.result() for job in jobs]

    def _send(self, place: Place, record: SharedRecord) -> Descriptor | None:
        """Bring one layer there; None when its files are nowhere to be had."""
        self._cancel.check()
        blob = self._made_here(record)
        if blob is None:
            known = self._imports.layer(record.diff_id) if self._imports is not None else None
            if known is None or self._imports is None:
                return None
            if place.has(known.digest):
                return known
            blob = self._imports.fetch(record.diff_id, self._cancel)
        place.put(blob, self._opener(blob.digest))
        return blob

    def _made_here(self, record: SharedRecord) -> Descriptor | None:
        from runtime.images.blobs import layer_blob

        if self._images.store.snapshots.by_chain(record.chain_id) is None:
            return None
        return layer_blob(
            self._images, record.diff_id, record.chain_id, self._target.compression, self._cancel
        )

    def _opener(self, digest: Digest) -> Callable[[int], BinaryIO]:
        def open_at(offset: int) -> BinaryIO:
            file = self._images.store.content.open(digest)
            file.seek(offset)
            return file

        return open_at
