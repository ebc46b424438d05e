"""From the solved graph to an image in the store: its config, and every layer as a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.built import Built
from builder.graph import StageGraph
from builder.result import image_config
from builder.state import RootState, State
from registry_client.oci.digest import Digest, chain_ids, digest_of
from runtime.cancel import Cancel
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.sharing.exports import Gathered
    from runtime.images.images import Images


class Finisher:
    """Makes the images of one build. With `inline` the config carries the cache's records."""

    def __init__(
        self, store: Store, images: Images, epoch: int | None, cancel: Cancel, *, inline: bool = False
    ) -> None:
        self._store, self._images, self._epoch = store, images, epoch
        self._cancel, self._inline = cancel, inline

    def finish(
        self, graph: StageGraph, states: Mapping[Digest, State], gathered: Gathered | None = None
    ) -> Built:
        """Record the image a graph led to."""
        root = states[graph.root.digest]
        assert isinstance(root, RootState)
        config = image_config(graph, states, self._epoch)
        if gathered is not None and self._inline:
            from builder.sharing.exports import with_inline_cache

            config = with_inline_cache(config, gathered)
        image = self._images.records.get(digest_of(config))
        if image is None or not self._is_whole(root):
            image = self._images.add_built(config, self._layers(root))
        cached = all(state.cached for state in states.values() if isinstance(state, RootState))
        return Built(image, graph, states, cached)

    def _is_whole(self, root: RootState) -> bool:
        """The image is known, and what it is made of is here (and leased to us now)."""
        layers = root.layers()
        return not layers or (
            layers[-1].snapshot != "" and self._store.snapshots.find(layers[-1].snapshot) is not None
        )

    def _layers(self, root: RootState) -> list[tuple[Digest, str]]:
        """Every layer with the snapshot it led to, the base's included."""
        found: list[tuple[Digest, str]] = []
        if root.image is not None and root.image.config.diff_ids:
            self._images.snapshot(root.image, self._cancel)
            found.extend(self._base_layers(root.image.config.diff_ids))
        root.snapshot()  # what was found elsewhere is fetched
        found.extend(
            (layer.diff_id, layer.snapshot or self._unpacked(layer.chain_id)) for layer in root.layers()
        )
        return found

    def _unpacked(self, chain: Digest) -> str:
        snapshot = self._store.snapshots.by_chain(chain)
        assert snapshot is not None, "an unpacked root has a snapshot for each of its layers"
        return snapshot.id

    def _base_layers(self, diff_ids: tuple[Digest, ...]) -> list[tuple[Digest, str]]:
        chain = chain_ids(diff_ids)
        return [(diff_id, self._unpacked(each)) for diff_id, each in zip(diff_ids, chain, strict=True)]
