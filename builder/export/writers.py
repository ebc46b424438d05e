"""Write one output: an archive, a directory, a root file system, or a push.

What goes to a file is written beside it and renamed, so a failed export leaves the earlier file. `dest` "-" is standard
output, which then belongs to the archive alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder.built import native
from builder.export.attest import Attestor
from builder.export.bundle import Bundle, make_bundle
from builder.export.files import opened_output, write_layout
from builder.export.options import flag, image_form
from builder.export.roots import (
    Piece,
    check_clearable,
    file_subjects,
    opened_root,
    platform_directory,
    remove_others,
    write_directory,
    write_pieces,
    write_tar,
)
from builder.request import OutputMade, OutputWanted
from registry_client.reference import Reference, parse_reference
from registry_client.values import replace
from runtime.cancel import stoppable
from runtime.errors import InvalidInput, Unsupported
from runtime.events import Warned

if TYPE_CHECKING:
    from builder.built import Built, Occasion
    from builder.operations.step import Setting
    from registry_client.oci.digest import Digest
    from runtime.images.images import Images
    from runtime.images.push import Push
    from runtime.store.store import Store

_FILES = {"https://slsa.dev/provenance/v1": "provenance.json", "https://spdx.dev/Document": "sbom.spdx.json"}


class Writer:
    """Writes the outputs of one build: `built` has an image for each platform."""

    def __init__(
        self,
        store: Store,
        images: Images,
        occasion: Occasion,
        built: Sequence[Built],
        setting: Setting,
        attestor: Attestor,
    ) -> None:
        self._store, self._images, self._occasion = store, images, occasion
        self._request, self._built, self._setting = occasion.request, built, setting
        self._attestor = attestor if occasion.request.attest else None
        self._carried = False  # whether an output took what is attested along

    def write(self, wanted: OutputWanted) -> OutputMade:
        match wanted.type:
            case "cacheonly":
                return OutputMade(wanted.type, "")
            case "image":
                return self._name_image(wanted)
            case "registry":
                return self._push(wanted)
            case "oci":
                return self._write_oci(wanted)
            case "docker":
                return self._write_docker(wanted)
            case "local":
                return self._write_local(wanted)
            case "tar":
                return self._write_tar(wanted)
        raise Unsupported(f"output type {wanted.type!r} is not known")

    def warn_of_what_nobody_carries(self) -> None:
        """An attestation that was asked for and went nowhere."""
        if self._attestor is not None and not self._carried:
            text = "no output carries the attestation: push the image, or write it with -o type=oci"
            self._warn(text)

    def _warn(self, message: str) -> None:
        self._setting.emit(Warned(node=self._request.node, message=message))

    # --- images ---------------------------------------------------------------------------------------------------

    def _names(self, wanted: OutputWanted) -> list[Reference]:
        return [_reference(name) for name in _split(wanted.name) or self._request.tags]

    def _bundle(
        self, wanted: OutputWanted, names: Sequence[Reference], sending: Push | None = None
    ) -> Bundle:
        attest = self._attestor
        form = image_form(wanted, self._request.annotations, bool(self._request.attest))
        form = replace(form, indexed=self._request.as_several)
        self._carried = True
        cancel, made = (sending.stop, sending.send) if sending else (self._setting.cancel, None)
        return make_bundle(self._images, self._built, form, names, attest, self._setting.epoch, cancel, made)

    def _name_image(self, wanted: OutputWanted) -> OutputMade:
        """Names in the store. Annotated, or known by digest, the image gets its manifest now: a later push sends it as it is."""
        names = ",".join([str(self._tag(name)) for name in _split(wanted.name)])
        form = image_form(wanted, self._request.annotations, attested=False)
        repositories = self._known_by_digest(wanted)
        if not form.annotations and not repositories:
            return OutputMade(wanted.type, names)
        bundles = []
        for built in self._built:
            bundles.append(
                bundle := make_bundle(
                    self._images, [built], form, (), None, self._setting.epoch, self._setting.cancel
                )
            )
            manifest = bundle.manifests[0]
            self._images.keep_manifest(built.image, manifest)
            for name in repositories:
                self._images.records.put_manifest(built.image.id, manifest.digest, manifest.media_type, name)
        return OutputMade(wanted.type, names, bundles[0].top.digest, bundles[0].describe())

    def _known_by_digest(self, wanted: OutputWanted) -> list[str]:
        """Repositories in which the image is `repository@digest`: those of its names, or the one for images without."""
        names = self._names(wanted)
        if names:
            return [name.name for name in names] if flag(wanted.options, "name-canonical") else []
        prefix = wanted.options.get("dangling-name-prefix", "")
        return [_reference(prefix).name] if prefix else []

    def _tag(self, name: str) -> Reference:
        tag = self._images.tag(native(self._built).image.id, name)
        if len(self._built) > 1:
            self._images.tag_platforms([each.image for each in self._built], name)
        return tag

    def _push(self, wanted: OutputWanted) -> OutputMade:
        from runtime.images.push import Parcel

        names = self._names(wanted)
        if not names:
            raise InvalidInput("a push needs a name", hint="give one with -t or name=")
        if wanted.options.get("type") == "image":
            for name in _split(wanted.name):
                self._tag(name)
        first, *others = names
        cancel = self._setting.cancel
        with self._images.pushing(self._built[0].image, first, cancel=cancel) as sending:
            bundle = self._bundle(wanted, names, sending)
            parcel = Parcel(bundle.top, bundle.manifests, bundle.images)
            by_digest = bundle.top.digest if flag(wanted.options, "push-by-digest") else None
            sending.finish(parcel, _named(first, by_digest))
        for each in others:
            self._images.push_parcel(parcel, _named(each, by_digest), cancel=cancel)
        return OutputMade(
            "registry", ",".join(map(str, names)), bundle.top.digest, bundle.describe(), bundle.config
        )

    # --- archives -------------------------------------------------------------------------------------------------

    def _write_oci(self, wanted: OutputWanted) -> OutputMade:
        from runtime.images.archive_out import layout_files, named_entries

        names = self._names(wanted)
        bundle = self._bundle(wanted, names)
        files = layout_files(tuple(named_entries(bundle.entry, names)))
        self._write_layout(wanted, bundle.blobs, files)
        return OutputMade(wanted.type, wanted.dest, bundle.top.digest, bundle.describe(), bundle.config)

    def _write_docker(self, wanted: OutputWanted) -> OutputMade:
        """docker save's form. It knows no index, so every platform is an image by itself and nothing is attested."""
        from runtime.images.archive_out import Saved, docker_files, layout_files, named_entries

        names = tuple(self._names(wanted))
        form = image_form(wanted, self._request.annotations, attested=False)
        bundles = [
            make_bundle(self._images, [each], form, (), None, self._setting.epoch, self._setting.cancel)
            for each in self._built
        ]
        saved = [
            Saved(built.image, bundle.manifests[0], names if built is native(self._built) else ())
            for built, bundle in zip(self._built, bundles, strict=True)
        ]
        entries = [
            entry
            for each, bundle in zip(saved, bundles, strict=True)
            for entry in named_entries(bundle.entry, each.references)
        ]
        blobs = [digest for bundle in bundles for digest in bundle.blobs]
        files = layout_files(tuple(entries)) | docker_files(saved)
        self._write_layout(wanted, blobs, files)
        return OutputMade(wanted.type, wanted.dest, bundles[0].top.digest, bundles[0].describe())

    def _write_layout(
        self, wanted: OutputWanted, blobs: Sequence[Digest], files: Mapping[str, bytes]
    ) -> None:
        from runtime.images.archive_out import write_members

        if flag(wanted.options, "tar", True):
            with opened_output(wanted.dest) as out:
                write_members(self._store, stoppable(out, self._setting.cancel), blobs, files)
            return
        if wanted.dest in ("", "-"):
            raise InvalidInput(f"output {wanted.type} with tar=false needs dest=DIRECTORY")
        write_layout(self._store, wanted.dest, blobs, files, self._setting.cancel)

    # --- root file systems ----------------------------------------------------------------------------------------

    def _is_split(self, wanted: OutputWanted) -> bool:
        split = flag(wanted.options, "platform-split", self._request.as_several)
        if not split and len(self._built) > 1:
            raise Unsupported(
                "several platforms in one directory would overwrite each other",
                hint="leave out platform-split",
            )
        return split

    def _beside(self, wanted: OutputWanted, built: Built, root: str) -> dict[str, bytes]:
        """What is attested of a root file system, by file name."""
        if self._attestor is None:
            return {}
        from builder.attest.statement import statement

        self._carried = True
        subjects, prefix = file_subjects(root, self._setting), wanted.options.get("attestation-prefix", "")
        if "/" in prefix:
            raise InvalidInput(f"--output: attestation-prefix {prefix!r} is the start of a file's name")
        made = self._attestor(built, None)
        return {
            prefix + (each.file or _FILES[each.predicate_type]): statement(each, subjects, readable=True)
            for each in made
        }

    def _write_local(self, wanted: OutputWanted) -> OutputMade:
        split, clearing = self._is_split(wanted), wanted.options.get("mode") == "delete"
        if clearing:
            check_clearable(wanted.dest, self._request.context)
        names: set[str] = set()
        for built in self._built:
            below = platform_directory(built.platform) if split else ""
            place = os.path.join(wanted.dest, below) if below else wanted.dest
            with opened_root(self._store, self._images, built.image) as root:
                written = write_directory(root, place, self._setting, self._beside(wanted, built, root))
            names |= {below, *(f"{below}/{name}" for name in written)} if below else written
        if clearing:
            remove_others(wanted.dest, names)
        return OutputMade(wanted.type, wanted.dest)

    def _write_tar(self, wanted: OutputWanted) -> OutputMade:
        split = self._is_split(wanted)
        with ExitStack() as stack:
            roots = [
                stack.enter_context(opened_root(self._store, self._images, b.image)) for b in self._built
            ]
            pieces = [
                Piece(root, platform_directory(b.platform) if split else "", self._beside(wanted, b, root))
                for b, root in zip(self._built, roots, strict=True)
            ]
            out = stoppable(stack.enter_context(opened_output(wanted.dest)), self._setting.cancel)
            if split or pieces[0].beside:
                write_pieces(pieces, out, self._setting)
            else:
                write_tar(roots[0], out, self._setting)
        return OutputMade(wanted.type, wanted.dest)


def _named(name: Reference, digest: Digest | None) -> Reference:
    """The name, or instead of its tag the digest."""
    return name.with_tag("").with_digest(digest) if digest else name


def _split(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _reference(name: str) -> Reference:
    try:
        return parse_reference(name).or_latest()
    except ValueError as error:
        raise InvalidInput(str(error)) from error
