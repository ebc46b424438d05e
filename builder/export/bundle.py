"""The images of a build as they leave: manifests, what is attested of them, and the index above them (B-14, B-17).

One image about which nothing is said is its manifest alone. Several platforms, or attestations, are an index: first the
images, then for each an attestation manifest of platform unknown/unknown that names it, as BuildKit does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from builder.attest.statement import Attestation, image_subjects, statement
from builder.built import Built
from builder.export.annotations import INDEX, INDEX_DESCRIPTOR, MANIFEST, MANIFEST_DESCRIPTOR
from builder.export.options import ImageForm
from builder.result import rfc3339
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.manifest import Index, Manifest, canonical_json, make_index, make_manifest
from registry_client.oci.platform import Platform
from registry_client.reference import Reference
from registry_client.values import frozen, replace
from runtime.cancel import Cancel
from runtime.errors import InvalidInput
from runtime.images.blobs import Made
from runtime.images.image import Image
from runtime.images.images import Images
from runtime.store.store import Store

_UNKNOWN = Platform("unknown", "unknown")
_CREATED = "org.opencontainers.image.created"
_DOCKER_TYPES = {
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
}
Attest = Callable[[Built, Manifest | None], Sequence[Attestation]]


@frozen
class Bundle:
    """`top` is what a name shall mean; `entry` its descriptor with what is annotated there. All blobs are in the store."""

    top: Manifest | Index
    entry: Descriptor
    manifests: tuple[Manifest, ...]
    images: Mapping[Digest, Image]  # which manifest is whose

    @property
    def blobs(self) -> tuple[Digest, ...]:
        from runtime.images.archive_out import blobs_of

        below = [digest for each in self.manifests for digest in blobs_of(each)]
        return tuple(dict.fromkeys((self.top.digest, *below)))

    @property
    def config(self) -> str:
        """The digest of the image's config; "" when there are several images."""
        return self.manifests[0].config.digest if len(self.images) == 1 else ""

    def describe(self) -> dict[str, Any]:
        """The top's descriptor, as `--metadata-file` shows it."""
        return self.entry.to_json()


def make_bundle(
    images: Images,
    built: Sequence[Built],
    form: ImageForm,
    names: Sequence[Reference],
    attest: Attest | None,
    epoch: int | None,
    cancel: Cancel,
    made: Made | None = None,
) -> Bundle:
    """Put the images, and what `attest` says of each, into the store in the form asked for.

    `made` is told of configs and layers as soon as they are there.
    """
    if (
        len(built) == 1
        and attest is None
        and not form.indexed
        and (form.annotations.of(INDEX) or form.annotations.of(INDEX_DESCRIPTOR))
    ):
        raise InvalidInput(
            "annotations of an index need one",
            hint="an image of one platform has one only with an attestation or BUILDKIT_MULTI_PLATFORM=1",
        )
    manifests = [_manifest(images, each.image, form, cancel, made) for each in built]
    entries = [_entry(form, each.platform, manifest) for each, manifest in zip(built, manifests, strict=True)]
    owners = {manifest.digest: each.image for each, manifest in zip(built, manifests, strict=True)}
    if len(built) == 1 and attest is None and not form.indexed:
        return Bundle(manifests[0], entries[0], (manifests[0],), owners)
    if attest is not None:
        for each, manifest, entry in list(zip(built, manifests, entries, strict=True)):
            about = _attestation(images.store, form, names, each, manifest, attest(each, manifest))
            manifests.append(about)
            entries.append(_reference_entry(about, entry.digest))
    index = _index(images.store, form, entries, epoch)
    top = replace(index.descriptor, annotations=form.annotations.of(INDEX_DESCRIPTOR))
    return Bundle(index, top, tuple(manifests), owners)


# --- images -------------------------------------------------------------------------------------------------------


def _manifest(images: Images, image: Image, form: ImageForm, cancel: Cancel, made: Made | None) -> Manifest:
    config, layers = images.parts(image, form.packing, cancel, made)
    kind = media_types.OCI_MANIFEST
    if not form.oci:
        kind, config = media_types.DOCKER_MANIFEST, replace(config, media_type=media_types.DOCKER_CONFIG)
        layers = tuple(
            replace(layer, media_type=_DOCKER_TYPES.get(layer.media_type, layer.media_type))
            for layer in layers
        )
        if any(layer.media_type not in _DOCKER_TYPES.values() for layer in layers):
            raise InvalidInput(
                "a layer is compressed in a way Docker's media types do not know",
                hint="leave out oci-mediatypes=false, or add force-compression=true",
            )
    said = form.annotations.of(MANIFEST, image.config.platform)
    manifest = make_manifest(config, layers, said, media_type=kind)
    if form.is_plain:
        images.keep_manifest(image, manifest)
    else:
        _put(images.store, manifest.raw)
    return manifest


def _entry(form: ImageForm, platform: Platform, manifest: Manifest) -> Descriptor:
    said = form.annotations.of(MANIFEST_DESCRIPTOR, platform)
    return replace(manifest.descriptor, platform=platform, annotations=said)


def _index(store: Store, form: ImageForm, entries: Sequence[Descriptor], epoch: int | None) -> Index:
    said = form.annotations.of(INDEX)
    if epoch is not None and form.oci:
        said.setdefault(_CREATED, rfc3339(epoch * 10**9))
    index = make_index(
        tuple(entries), said, media_type=media_types.OCI_INDEX if form.oci else media_types.DOCKER_INDEX
    )
    _put(store, index.raw)
    return index


def _put(store: Store, raw: bytes) -> Digest:
    """A blob that is kept as long as this process lives."""
    digest = digest_of(raw)
    store.leases.keep("blob", digest)
    store.content.put(raw)
    return digest


# --- what is attested ---------------------------------------------------------------------------------------------


def _attestation(
    store: Store,
    form: ImageForm,
    names: Sequence[Reference],
    built: Built,
    manifest: Manifest,
    attestations: Sequence[Attestation],
) -> Manifest:
    """The attestation manifest of one image: a layer for every statement."""
    subjects = image_subjects([str(name) for name in names], built.platform, manifest.digest)
    layers = tuple(_statement_layer(store, each, statement(each, subjects)) for each in attestations)
    if form.artifact:
        config = Descriptor(media_types.OCI_EMPTY, _put(store, b"{}"), 2)
        made = make_manifest(
            config, layers, artifact_type=media_types.ATTESTATION_MANIFEST, subject=manifest.descriptor
        )
    else:
        made = make_manifest(_config(store, layers), layers)
    _put(store, made.raw)
    return made


def _statement_layer(store: Store, attestation: Attestation, raw: bytes) -> Descriptor:
    said = {"in-toto.io/predicate-type": attestation.predicate_type}
    return Descriptor(media_types.IN_TOTO, _put(store, raw), len(raw), said)


def _config(store: Store, layers: Sequence[Descriptor]) -> Descriptor:
    """An image config of nothing, for registries that look into it."""
    raw = canonical_json(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
    return Descriptor(media_types.OCI_CONFIG, _put(store, raw), len(raw))


def _reference_entry(about: Manifest, image: Digest) -> Descriptor:
    said = {"vnd.docker.reference.digest": image, "vnd.docker.reference.type": "attestation-manifest"}
    return replace(about.descriptor, platform=_UNKNOWN, annotations=said)
