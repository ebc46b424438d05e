"""Make the attestations an output was asked to carry. Provenance is made per output, since it names the output's layers;
the bill of material of an image is made once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from builder.attest.provenance import provenance
from builder.attest.statement import Attestation
from builder.built import Built, Occasion
from builder.cache import Cache
from builder.export.roots import opened_root
from registry_client.oci.digest import Digest
from registry_client.oci.manifest import Manifest
from registry_client.reference import parse_reference
from registry_client.values import replace
from runtime.errors import Unsupported
from runtime.events import Emit, Warned
from runtime.images.image import Image
from runtime.images.images import Images
from runtime.store.store import Store

SBOM_LIMIT = 40 << 20  # what BuildKit takes


class Attestor:
    """What is said about the images of one build."""

    def __init__(self, store: Store, images: Images, occasion: Occasion, emit: Emit) -> None:
        self._store, self._images, self._occasion, self._emit = store, images, occasion, emit
        self._finished_ns = time.time_ns()
        self._boms: dict[Digest, tuple[Attestation, ...]] = {}

    def __call__(self, built: Built, manifest: Manifest | None) -> tuple[Attestation, ...]:
        """What was asked for, about one image; `manifest` None is a root file system that goes out without one."""
        wanted = self._occasion.request.attest
        found: list[Attestation] = []
        if wanted.sbom:
            found.extend(self._occasion.boms.get(built.image.id) or self._own_boms(built.image))
        if wanted.provenance:
            found.append(self.provenance(built, wanted.provenance, manifest))
        return tuple(found)

    def provenance(self, built: Built, mode: str, manifest: Manifest | None = None) -> Attestation:
        return provenance(Cache(self._store), self._occasion, built, mode, self._finished_ns, manifest)

    def _own_boms(self, image: Image) -> tuple[Attestation, ...]:
        if image.id not in self._boms:
            beside = self._occasion.looked_at.get(image.id, ())
            found = [self._bom(image, self._name(), "")]
            found += [self._bom(other, name, f"sbom-{name}.spdx.json") for name, other in beside]
            self._boms[image.id] = tuple(found)
        return self._boms[image.id]

    def _bom(self, image: Image, name: str, file: str) -> Attestation:
        from builder.sbom.scan import scan
        from builder.sbom.spdx import spdx_document

        with opened_root(self._store, self._images, image) as root:
            inventory = scan(root)
        for note in inventory.notes:
            self._emit(Warned(node=self._occasion.request.node, message=f"bill of material: {note}"))
        made = spdx_document(inventory, name, image.id, image.created, _tool())
        _check_size(made.predicate)
        return replace(made, file=file)

    def _name(self) -> str:
        names = self._occasion.request.tags
        return parse_reference(names[0]).familiar if names else "image"


def _check_size(document: Mapping[str, Any]) -> None:
    # A package takes well over 300 bytes; no need to write small documents just to measure them.
    if len(document["packages"]) * 1000 < SBOM_LIMIT:
        return
    import json

    if (size := len(json.dumps(document))) > SBOM_LIMIT:
        raise Unsupported(
            f"the bill of material has {size} bytes, more than {SBOM_LIMIT}", hint="build without --sbom"
        )


def _tool() -> str:
    try:
        return f"pipe-{metadata.version('pipe-ci')}"
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return "pipe"
