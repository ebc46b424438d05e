"""The embedded registry on a store of the test's own, in this process and on a free port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry_client.client import RegistryClient
from runtime.images.images import Images
from runtime.registry.service import EmbeddedRegistry, ServiceOptions
from runtime.store import Store
from tests.support.registry_images import SmallImage, opener


@dataclass(frozen=True)
class Served:
    """A running registry and the store behind it."""

    host: str
    store: Store
    images: Images
    client: RegistryClient

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def push(self, repository: str, tag: str, image: SmallImage) -> str:
        """Push over HTTP; the manifest's digest."""
        for descriptor, data in image.blobs:
            self.client.push_blob(repository, descriptor, opener(data))
        return self.client.put_manifest(repository, tag, image.manifest.raw, image.manifest.media_type)


@contextmanager
def embedded_registry(tmp_path: Path, options: ServiceOptions | None = None) -> Iterator[Served]:
    """Serve the store `tmp_path/store` for the length of the block."""
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(str(tmp_path / "store")))
        images = Images(store)
        served = EmbeddedRegistry(store, images, options or ServiceOptions(address="127.0.0.1:0"))
        registry = stack.enter_context(served)
        client = stack.enter_context(RegistryClient(registry.address))
        yield Served(registry.address, store, images, client)
