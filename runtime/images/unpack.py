"""Layers to snapshots: find how much of an image is unpacked already and unpack the rest from its blobs."""

from __future__ import annotations

from typing import BinaryIO, cast

from registry_client.oci.digest import Digest, chain_ids
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound
from runtime.images.records import ImageRecords
from runtime.store import Store
from runtime.store.locks import lock
from runtime.store.snapshots import Snapshot


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
        chain = chain_ids(diff_ids)
        if (whole := self._store.snapshots.by_chain(chain[-1])) is not None:
            return whole.id
        with lock(self._store.root, f"unpack {chain[0]}", cancel):
            below, done = self._unpacked(chain)
            for position in range(done, len(diff_ids)):
                below = self._unpack(diff_ids[: position + 1], below, cancel)
        return below

    def _unpacked(self, chain: list[Digest]) -> tuple[str | None, int]:
        """The snapshot furthest up the chain and how many layers it stands for."""
        for count in range(len(chain), 0, -1):
            if (found := self._store.snapshots.by_chain(chain[count - 1])) is not None:
                return found.id, count
        return None, 0

    def _unpack(self, diff_ids: tuple[Digest, ...], parent: str | None, cancel: Cancel | None) -> str:
        """Unpack the topmost of `diff_ids` on `parent`, which stands for the others."""
        from runtime.store.layers import EMPTY_LAYER

        if diff_ids[-1] == EMPTY_LAYER.diff_id and parent is not None:
            self._store.snapshots.link(diff_ids, parent)
            return parent
        snapshot = self._unpack_blob(diff_ids[-1], parent, cancel)
        self._store.snapshots.link(diff_ids, snapshot.id)
        return snapshot.id

    def _unpack_blob(self, diff_id: Digest, parent: str | None, cancel: Cancel | None) -> Snapshot:
        from runtime.store.layers import apply_layer, decompress
        from runtime.store.layers.pipe import Ahead

        blob = self.blob_of(diff_id)
        with self._store.snapshots.prepare(parent) as draft, self._store.content.open(blob) as file:
            with Ahead(decompress(cast(BinaryIO, _Cancellable(file, cancel)))) as stream:
                info = apply_layer(stream, draft.upper, lowers=draft.lowers)
            if info.diff_id != diff_id:
                raise InvalidInput(f"layer {blob} unpacks to {info.diff_id}, but its image says {diff_id}")
            return draft.commit(diff_id=diff_id, size=info.size)

    def blob_of(self, diff_id: Digest) -> Digest:
        """A blob that is here and holds the layer."""
        for form in self._records.layer_forms(diff_id):
            self._store.leases.keep("blob", form.digest)
            if self._store.content.has(form.digest):
                return form.digest
        raise NotFound(f"layer {diff_id} is not in the store", hint="pull or build the image again")
