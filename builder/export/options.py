"""The fields of one `--output`, read strictly (FEATURES B-13, B-14). Pure: the command line calls it to find mistakes early."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.export.annotations import Annotations, parse_annotations
from builder.request import OutputWanted
from registry_client.values import frozen
from runtime.errors import InvalidInput
from runtime.images.blobs import ESTARGZ, Packing

_LEVELS = {"gzip": range(10), "zstd": range(23), "estargz": range(10), "": range(0)}
_TRUE, _FALSE = ("true", "1", ""), ("false", "0")
FIELDS = (
    "type", "dest", "name", "push", "push-by-digest", "tar", "compression", "compression-level", "force-compression",
    "oci-mediatypes", "oci-artifact", "rewrite-timestamp", "annotation", "store", "unpack", "platform-split",
    "attestation-prefix", "name-canonical", "dangling-name-prefix", "mode",
)  # fmt: skip


@frozen(kw_only=True)
class ImageForm:
    """How an image is written. `oci` False is Docker's schema 2; `artifact` puts attestations in OCI's artifact form."""

    packing: Packing = Packing()
    oci: bool = True
    artifact: bool = False
    annotations: Annotations = Annotations()
    indexed: bool = False  # an index even around a single image

    @property
    def is_plain(self) -> bool:
        """Whether the manifest is the one the store makes for the image by itself."""
        changed = self.annotations or self.packing != Packing(self.packing.kind)
        return self.oci and not changed and self.packing.kind != ESTARGZ


def image_form(wanted: OutputWanted, annotations: Iterable[str], attested: bool) -> ImageForm:
    """The form of an image output; what only OCI's types can say brings them about, as in BuildKit."""
    kind = "" if wanted.compression == "uncompressed" else wanted.compression
    said = parse_annotations(annotations, wanted.options)
    # zstd has no place among Docker's media types, nor have the annotations of eStargz layers.
    needs_oci = bool(said) or attested or kind in ("zstd", ESTARGZ)
    return ImageForm(
        packing=Packing(kind, _level(wanted.options, kind), flag(wanted.options, "force-compression")),
        oci=flag(wanted.options, "oci-mediatypes", True) or needs_oci,
        artifact=flag(wanted.options, "oci-artifact"),
        annotations=said,
    )


def _level(options: Mapping[str, str], kind: str) -> int | None:
    text = options.get("compression-level", "")
    if not text:
        return None
    if not text.isdigit() or int(text) not in _LEVELS[kind]:
        known = _LEVELS[kind]
        hint = f"want 0 to {known[-1]}" if known else "uncompressed layers have none"
        raise InvalidInput(f"--output: compression-level {text!r} of {kind or 'uncompressed'}", hint=hint)
    return int(text)


def flag(options: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A field that is true or false; a word alone is true."""
    text = options.get(name)
    if text is None:
        return default
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidInput(f"--output: {name}={text!r}", hint="want true or false")


def check_options(wanted: OutputWanted, annotations: Iterable[str]) -> None:
    """Find mistakes before anything is built."""
    if wanted.options.get("mode", "copy") not in ("copy", "delete"):
        raise InvalidInput(f"--output: mode={wanted.options['mode']!r}", hint="want copy or delete")
    image_form(wanted, annotations, attested=False)
    for name in ("push-by-digest", "tar", "platform-split", "store", "unpack", "name-canonical"):
        flag(wanted.options, name)
