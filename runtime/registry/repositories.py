"""What the repositories of the embedded registry hold, read from and written to the store's images.

A tag is an image's tag in the store, so building `shop/app:1` is publishing it; its manifest is made when somebody
asks. What was pushed keeps its exact manifest for as long as the image's tag stays on the image it was pushed with.
What is no image of this host (signatures, charts, other platforms) has rows of the registry's own. Blobs are the
store's: every repository shows all of them, except those that were deleted from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry_client.oci import media_types
from registry_client.oci.config import parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.manifest import Index, Manifest, parse_manifest
from registry_client.oci.platform import host_platform
from registry_client.reference import parse_reference
from registry_client.values import frozen
from runtime.errors import InvalidInput, NotFound
from runtime.images.images import Images
from runtime.images.variants import note_index
from runtime.registry.answers import refusal
from runtime.registry.names import candidates, reference_of, repository_of
from runtime.registry.records import ManifestRow, Records, TagRow
from runtime.store import Store
from runtime.store.index import update_index
from runtime.store.locks import lock

MANIFEST_LIMIT = 8 << 20  # distribution-spec asks for 4 MiB at least
_KNOWN = media_types.MANIFESTS | media_types.INDEXES


@frozen
class Held:
    """A manifest or index a repository has; its bytes are the blob `digest`."""

    digest: Digest
    media_type: str


@frozen
class Stored:
    digest: Digest
    subject: Digest | None


class Repositories:
    """All repositories. `own_hosts` are the names this registry is reached by."""

    def __init__(
        self, store: Store, images: Images, records: Records, own_hosts: Callable[[], tuple[str, ...]]
    ) -> None:
        self._store = store
        self._images = images
        self._records = records
        self._own_hosts = own_hosts

    # ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def names(self) -> list[str]:
        """All repositories with something in them."""
        own = self._own_hosts()
        found = self._records.repositories()
        for name, _ in self._records.image_tags():
            repository = repository_of(parse_reference(name), own)
            if repository is not None:
                found.add(repository)
        return sorted(found)

    def exists(self, repository: str) -> bool:
        return bool(self._image_tags(repository)) or self._records.has_repository(repository)

    def tags(self, repository: str) -> list[str]:
        images = self._image_tags(repository)
        artifacts = {row.tag for row in self._records.tags(repository) if not row.image}
        return sorted(set(images) | artifacts)

    def _image_tags(self, repository: str) -> dict[str, Digest]:
        """The tags of a repository that name images."""
        found: dict[str, Digest] = {}
        for candidate in reversed(candidates(repository, self._own_hosts())):
            for name, image in self._records.image_tags(candidate.name):
                found[parse_reference(name).tag] = image
        return found

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        return [row.descriptor for row in self._records.referrers(repository, subject)]

    # ── finding ────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, repository: str, selector: str) -> Held | None:
        """By tag or digest."""
        if ":" in selector:
            return self._find_by_digest(repository, Digest(selector))
        return self._find_by_tag(repository, selector)

    def _find_by_digest(self, repository: str, digest: Digest) -> Held | None:
        if (row := self._records.manifest(repository, digest)) is not None:
            return Held(digest, row.media_type)
        shown = self._images_shown(repository)
        for image in self._images.records.by_manifest(digest):
            if image in shown:
                kinds = {
                    each["digest"]: each["media_type"] for each in self._images.records.manifests_of(image)
                }
                return Held(digest, kinds[digest])
        return None

    def _images_shown(self, repository: str) -> set[Digest]:
        """The images its tags name, for all platforms."""
        found: set[Digest] = set()
        for candidate in candidates(repository, self._own_hosts()):
            for name, image in self._records.image_tags(candidate.name):
                found |= {image, *self._images.records.variants(name)}
        return found

    def _find_by_tag(self, repository: str, tag: str) -> Held | None:
        pushed = self._records.tag(repository, tag)
        name, image = self._image_of(repository, tag)
        if pushed is not None and pushed.image == (image or ""):
            row = self._records.manifest(repository, pushed.digest)
            if row is None or self._stands_for(name, row):
                return Held(row.digest, row.media_type) if row is not None else None
        if image is None:
            return None
        variants = self._images.records.variants(name)
        manifests = [self._manifest_of(each) for each in variants or (image,)]
        top = self._index_of(name) if len(variants) > 1 and all(manifests) else manifests[0]
        if top is None:
            return None
        # What was deleted here came back with an image that was built or pulled.
        parts = [part.digest for each in manifests if each is not None for part in _parts(each)]
        self._records.undelete_blobs(repository, parts)
        return Held(top.digest, top.media_type)

    def _stands_for(self, name: str, row: ManifestRow) -> bool:
        """Whether an index that was pushed has all images the name stands for: a build may have moved one of them."""
        variants = self._images.records.variants(name) if name else []
        if not variants or row.media_type not in media_types.INDEXES:
            return True
        index = parse_manifest(self._store.content.read(row.digest, MANIFEST_LIMIT), row.media_type)
        assert isinstance(index, Index)
        known = {each for entry in index.manifests for each in self._images.records.by_manifest(entry.digest)}
        return known.issuperset(variants)

    def _index_of(self, name: str) -> Index | Manifest | None:
        """The index of a name for several platforms. Its images' manifests are there, so it is quickly made."""
        from runtime.images.variants import parcel_of

        parcel = parcel_of(self._images, name, "gzip", None)
        if parcel is None:
            return None
        for image in parcel.images.values():
            self._images.records.put_manifest(image.id, parcel.top.digest, parcel.top.media_type)
        return parcel.top

    def _image_of(self, repository: str, tag: str) -> tuple[str, Digest | None]:
        """The name in the store that a tag stands for, and its image."""
        for candidate in candidates(repository, self._own_hosts()):
            name = str(candidate.with_tag(tag))
            image = self._images.records.by_tag(name)
            if image is not None:
                return name, image
        return "", None

    def _manifest_of(self, image_id: Digest) -> Manifest | None:
        image = self._images.records.get(image_id)
        if image is None:
            return None
        # Compressing may take longer than a client waits: when it comes again, it waits for the first.
        with lock(self._store.root, f"manifest {image_id}"):
            return self._images.manifest(image)

    # ── blobs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def has_blob(self, repository: str, digest: Digest) -> bool:
        return self._store.content.has(digest) and not self._records.is_deleted(repository, digest)

    # ── storing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(
        self, repository: str, digest: Digest | None, tags: Iterable[str], raw: bytes, sent_as: str
    ) -> Stored:
        """Store a manifest under its digest and tags. With `digest` its content must be that."""
        manifest = self._checked(repository, raw, sent_as)
        stored = self._store_bytes(raw, digest)
        parts = [part.digest for part in _parts(manifest)]
        self._records.add_manifest(repository, _row(stored, manifest), parts)
        image = self._adopt(manifest)
        for tag in tags:
            self._set_tag(repository, tag, stored, image)
            if image is not None and isinstance(manifest, Index):
                note_index(self._images, manifest, str(reference_of(repository).with_tag(tag)))
        if image is not None:
            update_index(self._store)
        return Stored(stored, manifest.subject.digest if manifest.subject else None)

    def _set_tag(self, repository: str, tag: str, manifest: Digest, image: Digest | None) -> None:
        if image is None:
            self._untag(repository, tag)
            self._records.set_tag(repository, TagRow(tag, manifest))
            return
        name = str(reference_of(repository).with_tag(tag))
        # First the row: a reader in between sees the tag as it was, never the image under another's manifest.
        self._records.set_tag(repository, TagRow(tag, manifest, image, name))
        self._images.tag(image, name)

    def _checked(self, repository: str, raw: bytes, sent_as: str) -> Manifest | Index:
        try:
            manifest = parse_manifest(raw, sent_as)
        except ValueError as error:
            raise refusal("MANIFEST_INVALID", str(error)) from error
        kind = sent_as.partition(";")[0].strip()
        if kind in _KNOWN and kind != manifest.media_type:
            raise refusal("MANIFEST_INVALID", f"sent as {kind}, but it says it is {manifest.media_type}")
        for part in _parts(manifest):
            known = (
                self.has_blob(repository, part.digest)
                if isinstance(manifest, Manifest)
                else self._has_child(repository, part)
            )
            if not known:
                raise refusal("MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {part.digest}")
        return manifest

    def _has_child(self, repository: str, part: Descriptor) -> bool:
        if part.media_type in _KNOWN:
            return self.find(repository, part.digest) is not None
        return self.has_blob(repository, part.digest)

    def _store_bytes(self, raw: bytes, digest: Digest | None) -> Digest:
        if digest is None:
            return self._store.content.put(raw)
        try:
            with self._store.content.writer(digest, len(raw)) as writer:
                writer.write(raw)
                return writer.commit()
        except InvalidInput as error:
            raise refusal("DIGEST_INVALID", error.message) from error

    def _adopt(self, manifest: Manifest | Index) -> Digest | None:
        """Make the image of a manifest known to the store; its id, or None when it is no image for this host."""
        if isinstance(manifest, Index):
            entry = manifest.choose(host_platform())
            if entry is None or entry.media_type not in media_types.MANIFESTS:
                return None
            child = parse_manifest(self._store.content.read(entry.digest), entry.media_type)
            return self._adopt(child) if isinstance(child, Manifest) else None
        if manifest.config.media_type not in media_types.CONFIGS:
            return None
        forms = [media_types.compression_of(layer.media_type) for layer in manifest.layers]
        try:
            raw = self._store.content.read(manifest.config.digest)
            diff_ids = parse_config(raw).diff_ids
        except (ValueError, NotFound, InvalidInput):
            return None
        here = all(self._store.content.has(layer.digest) for layer in manifest.layers)
        if (
            None in forms
            or len(diff_ids) != len(forms)
            or digest_of(raw) != manifest.config.digest
            or not here
        ):
            return None
        records, own = self._images.records, self._own_manifest(digest_of(raw))
        with self._store.db.transaction(durable=True):
            image = records.put(raw, durable=True)
            for diff_id, form, layer in zip(diff_ids, forms, manifest.layers):
                records.put_layer(diff_id, form or "", layer.digest, layer.size)
            records.put_manifest(image, manifest.digest, manifest.media_type)
            if own is not None:
                # An image keeps the manifest it has: others know it by that one, and `index.json` names it.
                records.put_manifest(image, own.digest, own.media_type)
        return image

    def _own_manifest(self, image_id: Digest) -> Held | None:
        image = self._images.records.get(image_id)
        if (
            image is None
            or image.manifest_digest is None
            or not self._store.content.has(image.manifest_digest)
        ):
            return None
        kinds = {row["digest"]: row["media_type"] for row in self._images.records.manifests_of(image_id)}
        return Held(image.manifest_digest, kinds[image.manifest_digest])

    # ── deleting ───────────────────────────────────────────────────────────────────────────────────────────────────

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Take a tag away; the manifest stays."""
        untagged = self._untag(repository, tag)
        return self._records.remove_tag(repository, tag) or untagged

    def _untag(self, repository: str, tag: str) -> bool:
        found = False
        for candidate in candidates(repository, self._own_hosts()):
            name = candidate.with_tag(tag)
            if self._images.records.by_tag(str(name)) is not None:
                found = self._images.untag(str(name)) or found
        return found

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Forget a manifest and all tags that lead to it."""
        known = self._find_by_digest(repository, digest) is not None
        for tag in self.tags(repository):
            held = self._records.tag(repository, tag)
            name, image = self._image_of(repository, tag)
            pushed_as = held.digest if held is not None and held.image == (image or "") else None
            built_as = self._built_as(name, image) if image else []
            if digest == pushed_as or (pushed_as is None and digest in built_as):
                self.delete_tag(repository, tag)
        return self._records.remove_manifest(repository, digest) or known

    def _built_as(self, name: str, image: Digest) -> list[str]:
        """What a tag leads to: an index where it stands for several platforms, else a manifest."""
        several = bool(self._images.records.variants(name))
        return [
            row["digest"]
            for row in self._images.records.manifests_of(image)
            if not several or row["media_type"] in media_types.INDEXES
        ]


def _parts(manifest: Manifest | Index) -> Iterable[Descriptor]:
    """What must be there before the manifest. A subject need not be, nor layers that live elsewhere."""
    if isinstance(manifest, Index):
        yield from manifest.manifests
        return
    yield manifest.config
    for layer in manifest.layers:
        if (
            not layer.urls
            and "nondistributable" not in layer.media_type
            and "foreign" not in layer.media_type
        ):
            yield layer


def _row(digest: Digest, manifest: Manifest | Index) -> ManifestRow:
    config_type = manifest.config.media_type if isinstance(manifest, Manifest) else ""
    return ManifestRow(
        digest,
        manifest.media_type,
        len(manifest.raw),
        manifest.subject.digest if manifest.subject else "",
        manifest.artifact_type or config_type,
        manifest.annotations,
    )
