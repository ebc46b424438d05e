"""Layers to snapshots: find how much of an image is unpacked already and unpack the rest, from blobs that are here or
from such as just arrive.

Layers of one chain go in order, since what an entry means depends on those below. A lock for each layer of a chain lets
a second process wait for the layer it wants and no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, cast

from registry_client.oci.digest import Digest, chain_ids
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound
from runtime.images.records import ImageRecords
from runtime.store import Store
from runtime.store.locks import lock
from runtime.store.snapshots import Snapshot

_CHUNK = 1 << 20
OpenBlob = Callable[[], AbstractContextManager[BinaryIO]]


class _Cancellable:
    """A stream that stops being one when the user gives up."""

    def __init__(self, stream: BinaryIO, cancel: Cancel | None) -> None:
        self._stream, self._cancel = stream, cancel

    def read(self, size: int) -> bytes:
        if self._cancel is not None:
            self._cancel.check()
        return self._stream.read(size)


class Unpacker:
    def __init__(self, store: Store, records: ImageRecords) -> None:
        self._store, self._records = store, records

    def snapshot(self, diff_ids: tuple[Digest, ...], cancel: Cancel | None = None) -> str | None:
        """The snapshot of a chain of layers, unpacked as far as it is not; None for no layers."""
        if not diff_ids:
            return None
        below, done = self._unpacked(chain_ids(diff_ids))
        for position in range(done, len(diff_ids)):
            blob = self.blob_of(diff_ids[position])

            def opened(blob: Digest = blob) -> BinaryIO:
                return self._store.content.open(blob)

            below = self.layer(diff_ids[: position + 1], opened, f"layer {blob}", cancel)
        return below

    def _unpacked(self, chain: list[Digest]) -> tuple[str | None, int]:
        """The snapshot furthest up the chain and how many layers it stands for."""
        for count in range(len(chain), 0, -1):
            if (found := self._store.snapshots.by_chain(chain[count - 1])) is not None:
                return found.id, count
        return None, 0

    def layer(
        self, diff_ids: tuple[Digest, ...], open_blob: OpenBlob, name: str, cancel: Cancel | None = None
    ) -> str:
        """The snapshot of a chain all of which but the topmost layer is unpacked; `name` is that layer's, for errors."""
        from runtime.store.layers import EMPTY_LAYER

        chain = chain_ids(diff_ids)
        with lock(self._store.root, f"unpack {chain[-1]}", cancel):
            if (known := self._store.snapshots.by_chain(chain[-1])) is not None:
                return known.id
            parent = self._store.snapshots.by_chain(chain[-2]) if chain[1:] else None
            if chain[1:] and parent is None:
                raise NotFound(
                    f"layer {diff_ids[-2]} is not in the store", hint="pull or build the image again"
                )
            if diff_ids[-1] == EMPTY_LAYER.diff_id and parent is not None:
                snapshot = parent
            else:
                snapshot = self._unpack(diff_ids[-1], parent, open_blob, name, cancel)
            self._store.snapshots.link(diff_ids, snapshot.id)
            return snapshot.id

    def _unpack(
        self, diff_id: Digest, parent: Snapshot | None, open_blob: OpenBlob, name: str, cancel: Cancel | None
    ) -> Snapshot:
        from runtime.store.layers import apply_layer, decompress
        from runtime.store.layers.pipe import Ahead

        with self._store.snapshots.prepare(parent.id if parent else None) as draft, open_blob() as file:
            with Ahead(decompress(cast(BinaryIO, _Cancellable(file, cancel)))) as stream:
                info = apply_layer(stream, draft.upper, lowers=draft.lowers)
            _check(name, info.diff_id, diff_id)
            return draft.commit(diff_id=diff_id, size=info.size)

    def verify(self, diff_id: Digest, blob: Digest, cancel: Cancel | None = None) -> None:
        """Raise unless a blob that is here holds the layer, which nobody unpacked from it."""
        import hashlib

        from runtime.store.layers import decompress

        found = hashlib.sha256()
        with self._store.content.open(blob) as file:
            stream = decompress(cast(BinaryIO, _Cancellable(file, cancel)))
            while chunk := stream.read(_CHUNK):
                found.update(chunk)
        _check(f"layer {blob}", Digest(f"sha256:{found.hexdigest()}"), diff_id)

    def blob_of(self, diff_id: Digest) -> Digest:
        """A blob that is here and holds the layer."""
        for form in self._records.layer_forms(diff_id):
            self._store.leases.keep("blob", form.digest)
            if self._store.content.has(form.digest):
                return form.digest
        raise NotFound(f"layer {diff_id} is not in the store", hint="pull or build the image again")


def _check(name: str, found: Digest, wanted: Digest) -> None:
    if found != wanted:
        raise InvalidInput(f"{name} unpacks to {found}, but its image says {wanted}")
