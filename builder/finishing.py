"""From the solved graph to an image: its config, and every layer as a snapshot of the store.

A result that need not be stored (it is only pushed, or nobody wants it) is not: of a base that is elsewhere nothing is
fetched then, and the image is a value that no record speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.built import Built
from builder.graph import StageGraph
from builder.result import image_config
from builder.state import Made, RootState, State
from builder.trees import ImportFailed
from registry_client.oci.digest import Digest, chain_ids, digest_of
from runtime.cancel import Cancel
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.cache import Cache
    from builder.request import BuildRequest
    from builder.sharing.exports import Gathered
    from runtime.images.images import Images


def is_stored(request: BuildRequest) -> bool:
    """Whether the image has to be in the store, whole: for its name, an archive, a directory, a look into it."""
    outputs = request.outputs
    return (
        not outputs
        or bool(request.attest.sbom or request.attest.generator)
        or any(
            out.type not in ("registry", "cacheonly") or out.options.get("type") == "image" for out in outputs
        )
    )


class Finisher:
    """Makes the images of one build. With `inline` the config carries the cache's records."""

    def __init__(
        self,
        store: Store,
        images: Images,
        cache: Cache,
        epoch: int | None,
        cancel: Cancel,
        *,
        inline: bool = False,
        stored: bool = True,
    ) -> None:
        self._store, self._images, self._cache, self._epoch = store, images, cache, epoch
        self._cancel, self._inline, self._stored = cancel, inline, stored

    def finish(
        self, graph: StageGraph, states: Mapping[Digest, State], gathered: Gathered | None = None
    ) -> Built:
        """The image a graph led to, recorded unless that would take fetching nobody asked for."""
        root = states[graph.root.digest]
        assert isinstance(root, RootState)
        config = image_config(graph, states, self._epoch)
        if gathered is not None and self._inline:
            from builder.sharing.exports import with_inline_cache

            config = with_inline_cache(config, gathered)
        cached = all(state.cached for state in states.values() if isinstance(state, RootState))
        if not self._stored and not root.is_here():
            for layer in root.layers():
                self._have_blob(layer)
            return Built(self._images.describe(config), graph, states, cached, stored=False)
        image = self._images.records.get(digest_of(config))
        if image is None or not self._is_whole(root):
            image = self._images.add_built(config, self._layers(root))
        return Built(image, graph, states, cached)

    def _have_blob(self, layer: Made) -> None:
        """Have a layer as a snapshot or as a blob, whatever it stands on."""
        from runtime.images.blobs import kept_forms

        snapshots = self._store.snapshots
        if (
            snapshots.by_chain(layer.chain_id) is None
            and snapshots.by_layer(layer.diff_id) is None
            and not kept_forms(self._images, layer.diff_id)
        ):
            if self._cache.imports is None:
                raise ImportFailed
            self._cache.imports.blob(layer.diff_id, self._cancel)

    def _is_whole(self, root: RootState) -> bool:
        """The image is known, and what it is made of is here (and leased to us now)."""
        layers = root.layers()
        return not layers or (
            layers[-1].snapshot != "" and self._store.snapshots.find(layers[-1].snapshot) is not None
        )

    def _layers(self, root: RootState) -> list[tuple[Digest, str]]:
        """Every layer with the snapshot it led to, the base's included."""
        found: list[tuple[Digest, str]] = []
        root.snapshot()  # what is elsewhere is fetched
        if root.image is not None and root.image.config.diff_ids:
            self._images.snapshot(root.image, self._cancel)
            found.extend(self._base_layers(root.image.config.diff_ids))
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
