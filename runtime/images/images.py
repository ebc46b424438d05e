"""Images of this host: find, add, name, remove them, and get them from and to elsewhere.

The one entry to this room. What each verb does in detail lives in the module named after it; here is who calls whom.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal

from registry_client.oci.config import ContainerConfig, parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of, parse_digest
from registry_client.oci.manifest import Manifest
from registry_client.oci.media_types import compression_of
from registry_client.oci.platform import Platform, host_platform, parse_platform, rank
from registry_client.reference import Reference, parse_reference
from runtime.cancel import Cancel, stoppable
from runtime.errors import InvalidInput, NotFound
from runtime.events import Changed, Emit, ignore
from runtime.images.image import Image, Layer, Removed
from runtime.images.records import ImageRecords
from runtime.images.transport import NoTransport, Transport, connected
from runtime.images.unpack import Unpacker
from runtime.store import Store
from runtime.store.index import update_index

if TYPE_CHECKING:
    from runtime.images.blobs import Made, Packing
    from runtime.images.inspect import Step
    from runtime.images.lookup import Lookup
    from runtime.images.prune import Wanted
    from runtime.images.push import Parcel, Push
    from runtime.images.remote import Elsewhere, RemoteImage

_HEX = re.compile("(?:sha256:)?([0-9a-f]{1,64})")


class Images:
    """The images of one store."""

    def __init__(self, store: Store, transport: Transport | None = None, emit: Emit = ignore) -> None:
        self.store = store
        self.records = ImageRecords(store.db)
        self.transport = transport or NoTransport()
        self.emit = emit
        self.unpacker = Unpacker(store, self.records)

    @cached_property
    def elsewhere(self) -> Elsewhere:
        """What this process knows of layers that are not here."""
        from runtime.images.remote import Elsewhere

        return Elsewhere()

    # --- finding --------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Image | None:
        """By reference, image id, or a prefix of the id that only one image has."""
        image_id = self._find_named(name) or self._find_by_id(name)
        return self.records.get(image_id) if image_id else None

    def _find_named(self, name: str) -> Digest | None:
        try:
            reference = parse_reference(name)
        except ValueError:
            return None
        if reference.digest:
            return self._for_this_host(self.records.by_manifest(reference.digest, reference.name))
        return self.records.by_tag(str(reference.or_latest()))

    def _for_this_host(self, found: Sequence[Digest]) -> Digest | None:
        """Of images that one index names, the one this host runs best."""
        if len(found) < 2:
            return found[0] if found else None
        host, ranked = host_platform(), []
        for number, image_id in enumerate(found):
            if (image := self.records.get(image_id)) is not None:
                score = rank(host, image.config.platform)
                ranked.append((score is None, score or 0, number))
        return found[min(ranked)[2]] if ranked else None

    def _find_by_id(self, name: str) -> Digest | None:
        match = _HEX.fullmatch(name)
        if match is None:
            return None
        found = self.records.by_prefix(match[1])
        if len(found) > 1:
            raise InvalidInput(f"image id {name!r} is ambiguous", hint="give more of its digits")
        return found[0] if found else None

    def get(self, name: str) -> Image:
        """Like `find`, but the image must be here."""
        image = self.find(name)
        if image is None:
            raise _no_image(name)
        return image

    def list(self) -> tuple[Image, ...]:
        """All images, newest first."""
        return tuple(self.records.all())

    def resolve(
        self,
        name: str,
        *,
        platform: Platform | str | None = None,
        pull: Literal["missing", "always", "never"] = "missing",
        cancel: Cancel | None = None,
    ) -> Image:
        """The image a user means, pulled as `pull` says."""
        wanted = _platform(platform)
        local = None if pull == "always" and not _is_id(name) else self.local(name, wanted)
        if local is not None:
            return local
        if pull == "never" or _is_id(name):
            raise self._missing(name, wanted)
        return self.pull(_reference(name), wanted or host_platform(), cancel=cancel)

    def look_up(
        self, lookup: Lookup, transport: Transport, platform: Platform, cancel: Cancel
    ) -> Image | RemoteImage:
        """What a name means at its registry. Of an image that is not here no layer is fetched."""
        from runtime.images.remote import RemoteImage

        with connected(transport, lookup.reference, cancel) as client:
            found = lookup.find(client, platform, cancel)
        remote = RemoteImage(self, transport, found, cancel)
        return remote.keep() if remote.is_here else remote

    def local(self, name: str, platform: Platform | None = None) -> Image | None:
        """The image of that name that is here, if it is one for `platform`."""
        image = self.find(name)
        if image is None or platform is None or rank(platform, image.config.platform) is not None:
            return image
        return None

    def _missing(self, name: str, wanted: Platform | None) -> NotFound:
        other = self.find(name)
        if other is None:
            return _no_image(name)
        return NotFound(f"image {name} in the store is for {other.config.platform}, not for {wanted}")

    # --- adding ---------------------------------------------------------------------------------------------------

    def add_built(self, config: bytes, layers: Sequence[tuple[Digest, str]]) -> Image:
        """Record a built image. `layers` are diff_ids with the snapshots they led to, bottom first."""
        with self.store.db.transaction():
            image_id = self.records.put(config)
            image = self.records.get(image_id)
            assert image is not None
            if image.diff_ids != tuple(diff_id for diff_id, _ in layers):
                raise InvalidInput(f"the config of {image_id} does not list the layers it was built of")
            for position, (_, snapshot) in enumerate(layers):
                self.store.snapshots.link(image.diff_ids[: position + 1], snapshot)
        self.announce(image_id, "create")
        return self.get(image_id)

    def describe(self, config: bytes) -> Image:
        """An image as a value, recorded nowhere: one that is only pushed."""
        parsed = parse_config(config)
        layers = tuple(Layer(diff_id) for diff_id in parsed.diff_ids)
        return Image(digest_of(config), parsed, config, layers, created=parsed.created)

    def snapshot(self, image: Image, cancel: Cancel | None = None) -> str | None:
        """The snapshot of the image's top layer, unpacked where it is not yet; None for an image without layers."""
        return self.unpack(image.diff_ids, cancel)

    def unpack(self, diff_ids: tuple[Digest, ...], cancel: Cancel | None = None) -> str | None:
        """The snapshot of a chain of layers whose blobs are here."""
        return self.unpacker.snapshot(diff_ids, cancel)

    def load(self, stream: BinaryIO, platform: Platform | str | None = None) -> tuple[Image, ...]:
        """Take in the images of an archive (OCI layout or docker save)."""
        from runtime.images.archive_in import read_archive

        found = []
        for loaded in read_archive(self.store, stream, _platform(platform) or host_platform()):
            found.append(
                self._add_stored(loaded.raw_config, loaded.layers, loaded.manifest, loaded.references)
            )
        return tuple(found)

    def _add_stored(
        self,
        raw_config: bytes,
        layers: Iterable[Descriptor],
        manifest: Manifest | None,
        names: Iterable[Reference],
    ) -> Image:
        """Record an image whose blobs are all here."""
        with self.store.db.transaction():
            image_id = self.records.put(raw_config, durable=True)
            image = self.records.get(image_id)
            assert image is not None
            for diff_id, blob in zip(image.diff_ids, layers, strict=True):
                self.records.put_layer(diff_id, compression_of(blob.media_type) or "", blob.digest, blob.size)
            if manifest is not None:
                self.records.put_manifest(image_id, manifest.digest, manifest.media_type)
            for name in names:
                self.records.set_tag(str(name), image_id)
        self.announce(image_id, "load")
        return self.get(image_id)

    def import_root(
        self, stream: BinaryIO, *, config: ContainerConfig | None = None, comment: str = "", created: str = ""
    ) -> Image:
        """Make an image of one layer from the tar of a root file system, compressed or not."""
        from runtime.images.root_in import import_root

        return import_root(self, stream, config or ContainerConfig(), comment, created)

    def save(
        self,
        names: Iterable[str],
        out: BinaryIO,
        *,
        docker: bool = True,
        compression: str = "gzip",
        cancel: Cancel | None = None,
    ) -> None:
        """Write images as an archive: an OCI layout, with `docker` also in docker save's form."""
        from runtime.images.archive_out import Saved, write_archive

        by_image: dict[Digest, Saved] = {}
        for name in names:
            image, reference = self.get(name), self._saved_name(name)
            before = by_image.get(image.id)
            known = before.references if before else ()
            manifest = before.manifest if before else self.manifest(image, compression, cancel)
            by_image[image.id] = Saved(image, manifest, tuple(dict.fromkeys((*known, *reference))))
        write_archive(self, by_image.values(), stoppable(out, cancel), docker=docker)

    def _saved_name(self, name: str) -> tuple[Reference, ...]:
        """The name an image is saved under: none when it was named by id or digest."""
        tag = self.tag_of(name)
        return (parse_reference(tag),) if tag else ()

    def history(self, image: Image) -> tuple[Step, ...]:
        """How the image was made, last step first."""
        from runtime.images.inspect import history

        return history(self, image)

    # --- naming and removing --------------------------------------------------------------------------------------

    def tag(self, image_id: str, reference: str, *, all_platforms: bool = False) -> Reference:
        """Give an image (by id or name) one more name; the name leaves whatever had it.

        A name hands the platforms it stands for on; with `all_platforms` an id does so too, as its newest name has them.
        """
        image, target = self.get(image_id), _reference(reference)
        if target.digest:
            raise InvalidInput(f"cannot tag as {reference!r}: a tag has no digest")
        tag = self.tag_of(image_id)
        if not tag and all_platforms:
            tag = self.records.name_for_platforms(image.id)
        variants = self.records.variants(tag)
        with self.store.db.transaction():
            self.records.set_tag(str(target.or_latest()), image.id)
            if variants:
                self.records.set_variants(str(target.or_latest()), variants)
        self.announce(image.id, "tag", name=target.or_latest().familiar)
        return target.or_latest()

    def tag_platforms(self, found: Sequence[Image], reference: str) -> None:
        """Let a name that is set stand for these images, one for each platform."""
        self.records.set_variants(str(_reference(reference).or_latest()), [each.id for each in found])

    def tag_of(self, name: str) -> str:
        """The canonical name an image was named by; "" when that was an id or digest."""
        if _has_digest(name) or self._find_named(name) is None:
            return ""
        return str(_reference(name).or_latest())

    def untag(self, reference: str) -> bool:
        """Take a name away; the image stays."""
        removed = self.records.remove_tag(str(_reference(reference).or_latest()))
        update_index(self.store)
        return removed

    def remove(self, name: str, force: bool = False) -> tuple[Removed, ...]:
        """Take the name away, and with the last one the image. By id: all its names, if it is one or with `force`."""
        from runtime.images.remove import remove

        return remove(self, name, force)

    def users(self, image_id: str) -> tuple[str, ...]:
        """What else needs an image: containers, the embedded registry, a name for several platforms …"""
        from runtime.images.prune import users_of

        return users_of(self, image_id)

    def prune(self, wanted: Wanted | None = None) -> tuple[Removed, ...]:
        """Remove images nobody needs: dangling ones, or what `wanted` says. Their files go with the next collection."""
        from runtime.images.prune import Wanted, prune

        return prune(self, wanted or Wanted())

    # --- registries -----------------------------------------------------------------------------------------------

    def pull(
        self,
        reference: Reference | str,
        platform: Platform | str | None = None,
        *,
        cancel: Cancel | None = None,
    ) -> Image:
        """Get an image from its registry, with all its layers unpacked."""
        from runtime.images.pull import pull

        target = _reference(reference) if isinstance(reference, str) else reference
        return pull(self, target.or_latest(), _platform(platform) or host_platform(), cancel)

    def push(
        self,
        name: str,
        reference: Reference | str = "",
        *,
        compression: str = "gzip",
        platform: Platform | str | None = None,
        cancel: Cancel | None = None,
    ) -> Descriptor:
        """Push what is called `name`, as `reference` if that is another one; the descriptor of the manifest or index.

        A name for several platforms is pushed as their index; `platform` chooses one of them.
        """
        from runtime.images.push import push
        from runtime.images.variants import choose, parcel_of

        image, wanted = self.get(name), _platform(platform)
        target = (_reference(reference or name) if isinstance(reference, str) else reference).or_latest()
        tag = self.tag_of(name)
        if wanted is not None:
            image = choose(self, name, tag, wanted)
        elif (parcel := parcel_of(self, tag, compression, cancel)) is not None:
            return self.push_parcel(parcel, target, cancel=cancel)
        return push(self, image, target, compression, cancel)

    def manifest(
        self, image: Image, compression: str = "gzip", cancel: Cancel | None = None, made: Made | None = None
    ) -> Manifest:
        """The image's manifest with all its blobs in the store, made where they are missing; always the same bytes."""
        from runtime.images.blobs import ignore_blob, manifest_of

        return manifest_of(self, image, compression, cancel, made or ignore_blob)

    def parts(
        self, image: Image, packing: Packing, cancel: Cancel | None = None, made: Made | None = None
    ) -> tuple[Descriptor, tuple[Descriptor, ...]]:
        """The image's config and layers as blobs in the store, for whoever makes a manifest of them."""
        from runtime.images.blobs import ignore_blob, parts_of

        return parts_of(self, image, packing, cancel, made or ignore_blob)

    def keep_manifest(self, image: Image, manifest: Manifest) -> None:
        """Have the image known by this manifest from now on; a push sends it as it is."""
        from runtime.images.blobs import keep_manifest

        keep_manifest(self, image, manifest)

    def pushing(
        self, image: Image, reference: Reference, *, cancel: Cancel | None = None
    ) -> AbstractContextManager[Push]:
        """A push that sends what `manifest` and `parts` make as soon as it is made."""
        from runtime.images.push import pushing

        return pushing(self, image, reference, cancel)

    def push_parcel(
        self, parcel: Parcel, reference: Reference, *, cancel: Cancel | None = None
    ) -> Descriptor:
        """Push an index, or a manifest made of `parts`, with everything below it."""
        from runtime.images.push import push_parcel

        return push_parcel(self, parcel, reference, cancel)

    def announce(self, image_id: str, action: str, **attributes: str) -> None:
        """Tell that an image changed, after `index.json` follows the database."""
        update_index(self.store)
        self.emit(Changed(kind="image", id=image_id, action=action, attributes=attributes))


def _platform(value: Platform | str | None) -> Platform | None:
    if not isinstance(value, str):
        return value
    try:
        return parse_platform(value)
    except ValueError as error:
        raise InvalidInput(str(error), hint="for example linux/amd64 or linux/arm64") from error


def _reference(text: str) -> Reference:
    try:
        return parse_reference(text)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _has_digest(name: str) -> bool:
    return "@" in name


def _is_id(name: str) -> bool:
    """Whether the name can only be an image id."""
    try:
        parse_digest(name if name.startswith("sha256:") else f"sha256:{name}")
    except ValueError:
        return False
    return True


def _no_image(name: str) -> NotFound:
    return NotFound(f"no image {name} in the store", hint="see `pipe images`, or pull it")
