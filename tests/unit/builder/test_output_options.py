"""The fields of `--output`, annotations and attestations, as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from builder.export.annotations import Annotation, parse_annotations
from builder.export.options import image_form
from builder.request import AttestWanted, OutputWanted
from pipeline.cli.build_flags import attest_wanted
from registry_client.oci.platform import Platform
from runtime.errors import InvalidInput, PipeError
from runtime.images.blobs import Packing

ARM = Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", [Annotation("manifest", None, "a", "b")]),
        ("a=b=c", [Annotation("manifest", None, "a", "b=c")]),
        ("index:a=b", [Annotation("index", None, "a", "b")]),
        (
            "index,manifest[linux/arm64]:a=",
            [Annotation("index", None, "a", ""), Annotation("manifest", ARM, "a", "")],
        ),
        ("manifest-descriptor[linux/arm64]:a=b", [Annotation("manifest-descriptor", ARM, "a", "b")]),
        ("com.example:x=b", [Annotation("manifest", None, "com.example:x", "b")]),
    ],
)
def test_an_annotation_says_where_it_goes(text: str, expected: list[Annotation]) -> None:
    assert list(parse_annotations([text], {}).all) == expected


def test_fields_of_one_output_win_over_the_flag() -> None:
    fields = {"annotation.a": "field", "annotation-index.b": "i", "annotation-manifest[linux/arm64].c": "arm"}
    said = parse_annotations(["a=flag"], fields)
    assert said.of("manifest", ARM) == {"a": "field", "c": "arm"}
    assert said.of("manifest", Platform()) == {"a": "field"}
    assert said.of("index") == {"b": "i"}


@pytest.mark.parametrize("text", ["a", "=b", "index:=b", "index[linux/arm64]:a=b", "manifest[a/b/c/d]:a=b"])
def test_an_annotation_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_annotations([text], {})


def test_a_place_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidInput):
        parse_annotations([], {"annotation-nowhere.a": "b"})


def _form(
    compression: str = "gzip", annotations: tuple[str, ...] = (), attested: bool = False, **options: str
) -> Any:
    wanted = OutputWanted(
        type="oci", compression=compression, options={k.replace("_", "-"): v for k, v in options.items()}
    )
    return image_form(wanted, annotations, attested)


def test_compression_levels_are_those_of_the_compression() -> None:
    assert _form(compression_level="9").packing == Packing("gzip", 9)
    assert _form("zstd", compression_level="22", force_compression="true").packing == Packing(
        "zstd", 22, True
    )
    for compression, level in (
        ("gzip", "10"),
        ("zstd", "23"),
        ("uncompressed", "1"),
        ("gzip", "x"),
        ("gzip", "-1"),
    ):
        with pytest.raises(InvalidInput):
            _form(compression, compression_level=level)


def test_what_only_oci_can_say_brings_its_media_types() -> None:
    assert not _form(oci_mediatypes="false").oci
    assert _form(oci_mediatypes="false", attested=True).oci
    assert _form("zstd", oci_mediatypes="false").oci
    assert _form(annotations=("a=b",), oci_mediatypes="false").oci


def test_the_plain_form_is_that_of_the_store() -> None:
    assert _form().is_plain
    assert _form("zstd").is_plain
    assert not any(each.is_plain for each in (_form(compression_level="1"), _form(annotations=("a=b",))))


def test_a_field_is_true_or_false() -> None:
    assert _form(force_compression="").packing.force
    with pytest.raises(InvalidInput, match="force-compression"):
        _form(force_compression="perhaps")


def _attest(*attest: str, provenance: str | None = None, sbom: str | None = None) -> AttestWanted:
    return attest_wanted({"attest": attest, "provenance": provenance, "sbom": sbom})


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (_attest(), AttestWanted()),
        (_attest(provenance="true"), AttestWanted(provenance="min")),
        (_attest(provenance="max"), AttestWanted(provenance="max")),
        (
            _attest(provenance="mode=max,builder-id=urn:me"),
            AttestWanted(provenance="max", builder_id="urn:me"),
        ),
        (_attest("type=provenance,mode=max", provenance="false"), AttestWanted()),
        (_attest("type=sbom"), AttestWanted(sbom=True)),
        (_attest("type=sbom,disabled=true", "type=provenance"), AttestWanted(provenance="min")),
        (_attest(provenance="reproducible=true"), AttestWanted(provenance="min", reproducible=True)),
    ],
)
def test_attestations_are_asked_for_in_dockers_words(wanted: AttestWanted, expected: AttestWanted) -> None:
    assert wanted == expected


@pytest.mark.parametrize(
    "texts",
    [
        ("type=nothing",),
        ("type=provenance,mode=full",),
        ("type=sbom,mode=max",),
        ("type=provenance,version=v9",),
    ],
)
def test_a_mistake_in_an_attestation_is_told(texts: tuple[str, ...]) -> None:
    with pytest.raises(PipeError):
        _attest(*texts)
