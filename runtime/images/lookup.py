"""What a name means at its registry: index, manifest for a platform, config. No layers (FEATURES C-16).

Manifests and configs are blobs like others: verified, kept in the store, and not fetched again while they are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from registry_client.oci import media_types
from registry_client.oci.config import ImageConfig, parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Index, Manifest, parse_manifest
from registry_client.oci.platform import Platform
from registry_client.reference import Reference
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound, Unsupported
from runtime.images.arrivals import is_here, receive
from runtime.images.image import Image, Layer

if TYPE_CHECKING:
    from runtime.images.progress import Reporter
    from runtime.images.transport import Client
    from runtime.store import Store

Tell = Callable[[Descriptor], "Reporter"]
_CONFIG_LIMIT = 8 << 20
_DEPTH = 4  # of indexes in indexes


@frozen
class Found:
    """An image as its registry describes it. `known_by` are the descriptors of its manifest and of the indexes above, topmost first."""

    reference: Reference
    manifest: Manifest
    raw_config: bytes
    config: ImageConfig
    top: Manifest | Index  # what the reference itself names
    known_by: tuple[Descriptor, ...]

    def described(self) -> Image:
        """The image as a value; nothing is recorded of it."""
        name = self.reference
        layers = zip(self.config.diff_ids, self.manifest.layers, strict=True)
        return Image(
            id=self.manifest.config.digest,
            config=self.config,
            raw_config=self.raw_config,
            layers=tuple(Layer(diff_id, blob) for diff_id, blob in layers),
            manifest_digest=self.manifest.digest,
            tags=(str(name.with_tag(name.tag)),) if name.tag else (),
            created=self.config.created,
            repo_digests=(f"{name.name}@{self.known_by[0].digest}",),
        )


class Lookup:
    """Looks one reference up, for one platform or several: what it names is asked for once."""

    def __init__(self, store: Store, reference: Reference) -> None:
        self._store, self.reference = store, reference
        self._top: tuple[Manifest | Index, Descriptor] | None = None
        self._lock = threading.Lock()

    def find(self, client: Client, platform: Platform, cancel: Cancel, tell: Tell | None = None) -> Found:
        """The image for `platform`. `tell` makes the reporter of a blob that is fetched."""
        with self._lock:  # held while the registry is asked: who waits wants the same answer
            if self._top is None:
                self._top = self._fetch(client, self.reference.selector, "", cancel)
        manifest, known_by = self._manifest(client, platform, cancel)
        raw_config = self._config(client, manifest, cancel, tell)
        assert self._top is not None
        found = Found(self.reference, manifest, raw_config, self._parsed(raw_config), self._top[0], known_by)
        self._check(found)
        return found

    # --- manifests ------------------------------------------------------------------------------------------------

    def _manifest(
        self, client: Client, platform: Platform, cancel: Cancel
    ) -> tuple[Manifest, tuple[Descriptor, ...]]:
        assert self._top is not None
        found, descriptor = self._top
        known_by = [descriptor]
        for _ in range(_DEPTH):
            if isinstance(found, Manifest):
                if found.config.media_type not in media_types.CONFIGS:
                    raise InvalidInput(
                        f"{self.reference.familiar} is no image but {found.artifact_type or found.config.media_type}"
                    )
                return found, tuple(known_by)
            entry = self._chosen(found, platform)
            found, descriptor = self._fetch(client, entry.digest, entry.media_type, cancel)
            known_by.append(descriptor)
        raise InvalidInput(f"{self.reference.familiar} has indexes nested too deeply")

    def _chosen(self, index: Index, platform: Platform) -> Descriptor:
        entry = index.choose(platform)
        if entry is None:
            platforms = sorted({str(each.platform) for each in index.manifests if each.platform})
            offered = ", ".join(each for each in platforms if not each.startswith("unknown"))
            raise NotFound(
                f"{self.reference.familiar} has no image for {platform}",
                hint=f"it has {offered or 'none at all'}",
            )
        return entry

    def _fetch(
        self, client: Client, selector: str, media_type: str, cancel: Cancel
    ) -> tuple[Manifest | Index, Descriptor]:
        raw, sent, digest = self._bytes(client, selector, media_type, cancel)
        try:
            found = parse_manifest(raw, sent)
        except ValueError as error:
            raise InvalidInput(f"manifest of {self.reference.familiar}: {error}") from error
        return found, Descriptor(found.media_type, digest, len(raw))

    def _bytes(
        self, client: Client, selector: str, media_type: str, cancel: Cancel
    ) -> tuple[bytes, str, Digest]:
        cancel.check()
        store = self._store
        if ":" in selector and is_here(store, Digest(selector)):
            return store.content.read(Digest(selector)), media_type, Digest(selector)
        raw, sent, digest = client.manifest(self.reference.path, selector)
        store.leases.keep("blob", digest)
        with store.content.writer(digest, len(raw)) as writer:
            writer.write(raw)
            writer.commit()
        return raw, sent, digest

    # --- config ---------------------------------------------------------------------------------------------------

    def _config(self, client: Client, manifest: Manifest, cancel: Cancel, tell: Tell | None) -> bytes:
        if manifest.config.size > _CONFIG_LIMIT:
            raise InvalidInput(
                f"{self.reference.familiar} has a config of {manifest.config.size} bytes, more than {_CONFIG_LIMIT}"
            )
        report = tell(manifest.config) if tell is not None else None
        receive(self._store, client, self.reference, manifest.config, cancel, report)
        return self._store.content.read(manifest.config.digest, _CONFIG_LIMIT)

    def _parsed(self, raw: bytes) -> ImageConfig:
        try:
            return parse_config(raw)
        except ValueError as error:
            raise InvalidInput(f"config of {self.reference.familiar}: {error}") from error

    def _check(self, found: Found) -> None:
        """That manifest and config speak of the same layers, in forms we can unpack."""
        layers, diff_ids = found.manifest.layers, found.config.diff_ids
        if len(diff_ids) != len(layers):
            text = f"{len(layers)} layers in the manifest, {len(diff_ids)} in the config"
            raise InvalidInput(f"{self.reference.familiar} is inconsistent: {text}")
        for layer in layers:
            if media_types.compression_of(layer.media_type) is None:
                raise Unsupported(f"{self.reference.familiar} has a layer of type {layer.media_type!r}")
