from __future__ import annotations

import hashlib
import json

import pytest

from registry_client.oci import media_types
from registry_client.oci.config import dump_config, parse_config
from registry_client.oci.descriptor import Descriptor, parse_descriptor
from registry_client.oci.digest import Digest, chain_ids, digest_of, parse_digest
from registry_client.oci.manifest import Index, Manifest, make_index, make_manifest, parse_manifest
from registry_client.oci.platform import Platform, parse_platform
from tests.support import shared_data

A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))


def test_digests_are_checked_for_algorithm_length_and_case() -> None:
    assert parse_digest("sha256:" + "0" * 64) and parse_digest("sha512:" + "f" * 128)
    for wrong in (
        "sha256:" + "0" * 63,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 32,
        "sha256",
        "",
        "sha256:../../x",
    ):
        with pytest.raises(ValueError):
            parse_digest(wrong)


def test_a_chain_id_covers_the_layers_below_it() -> None:
    # image-spec config.md: ChainID(L0|…|Ln) = Digest(ChainID(L0|…|Ln-1) + " " + DiffID(Ln))
    second = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {C}".encode()).hexdigest()
    assert chain_ids((A, B, C)) == [A, second, third]
    assert chain_ids(()) == []


def test_a_manifest_keeps_its_exact_bytes() -> None:
    raw = json.dumps(
        {"schemaVersion": 2, "extra": [1], "config": _descriptor(A), "layers": [_descriptor(B)]}, indent=3
    ).encode()
    manifest = parse_manifest(raw, media_types.OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    assert manifest.raw == raw
    assert manifest.digest == digest_of(raw)


@pytest.mark.parametrize(
    ("record", "sent_as", "kind"),
    [
        ({"config": 1, "mediaType": media_types.DOCKER_MANIFEST}, "", media_types.DOCKER_MANIFEST),
        ({"config": 1}, media_types.DOCKER_MANIFEST + "; charset=utf-8", media_types.DOCKER_MANIFEST),
        ({"config": 1}, "text/plain", media_types.OCI_MANIFEST),
        ({"manifests": []}, "", media_types.OCI_INDEX),
        ({"manifests": []}, media_types.DOCKER_INDEX, media_types.DOCKER_INDEX),
    ],
)
def test_a_manifest_says_what_it_is_or_its_content_type_does(
    record: dict[str, object], sent_as: str, kind: str
) -> None:
    if "config" in record:
        record = {**record, "config": _descriptor(A)}
    assert parse_manifest(json.dumps({"schemaVersion": 2, **record}).encode(), sent_as).media_type == kind


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schemaVersion":1}', "schema 1"),
        (b'{"schemaVersion":2}', "unsupported manifest media type"),
        (b'{"schemaVersion":2,"config":{}}', "lacks mediaType or digest"),
        (b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:1","size":1}}', "want 64"),
        (json.dumps({"config": {"mediaType": "x", "digest": A, "size": -1}}).encode(), "no valid size"),
        (json.dumps({"config": {"mediaType": "x", "digest": A, "size": True}}).encode(), "no valid size"),
    ],
)
def test_what_is_no_manifest_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_manifest(raw)


def test_made_manifests_are_valid_by_the_published_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    manifest = make_manifest(_made(A), (_made(B), _made(C)), {"a": "b"})
    index = make_index((manifest.descriptor,), {"a": "b"})
    for record, name in ((manifest, "image-manifest"), (index, "image-index")):
        schema = json.loads(shared_data(f"spec/oci/image/{name}-schema.json").read_text())
        jsonschema.Draft4Validator(schema, registry=_registry()).validate(json.loads(record.raw))


def test_the_same_parts_make_the_same_manifest() -> None:
    assert make_manifest(_made(A), (_made(B),)).raw == make_manifest(_made(A), (_made(B),)).raw


def _index(*platforms: str) -> Index:
    entries = [
        Descriptor(media_types.OCI_MANIFEST, digest_of(text.encode()), 1, platform=_platform(text))
        for text in platforms
    ]
    index = parse_manifest(make_index(tuple(entries)).raw)
    assert isinstance(index, Index)
    return index


def test_one_word_is_a_platform_only_if_it_is_known() -> None:
    assert parse_platform("riscv64") == Platform("linux", "riscv64")
    assert parse_platform("aarch64") == Platform("linux", "arm64")
    with pytest.raises(ValueError, match="unknown operating system or architecture 'foo'"):
        parse_platform("foo")


def _platform(text: str) -> Platform:
    return Platform("unknown", "unknown") if text == "unknown" else Platform(*text.split("/"))


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ("linux/arm64", "linux/amd64", "unknown"), "linux/amd64"),
        ("linux/amd64", ("linux/arm64", "windows/amd64"), None),
        ("linux/arm64", ("linux/arm64/v8",), "linux/arm64/v8"),
        ("linux/arm/v7", ("linux/arm/v5", "linux/arm/v6"), "linux/arm/v6"),
        ("linux/arm/v7", ("linux/arm/v8",), None),
        ("linux/arm/v6", ("linux/arm/v7", "linux/arm/v6"), "linux/arm/v6"),
        ("linux/amd64", ("unknown",), None),
        ("linux/amd64", ("linux/amd64", "linux/amd64"), "linux/amd64"),
    ],
)
def test_the_manifest_that_fits_the_platform_best_is_chosen(
    wanted: str, offered: tuple[str, ...], chosen: str | None
) -> None:
    found = _index(*offered).choose(parse_platform(wanted))
    assert (found.digest if found else None) == (digest_of(chosen.encode()) if chosen else None)


def test_a_config_survives_reading_and_writing() -> None:
    raw = json.dumps(
        {
            "architecture": "arm64",
            "os": "linux",
            "variant": "v8",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Env": ["A=1"],
                "Cmd": ["sh"],
                "Entrypoint": None,
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
                "ExposedPorts": {"80/tcp": {}},
                "Labels": {"b": "2", "a": "1"},
                "Unknown": 1,
            },
            "rootfs": {"type": "layers", "diff_ids": [A]},
            "history": [{"created_by": "x"}, {"empty_layer": True}],
        }
    ).encode()
    config = parse_config(raw)
    assert config.config.entrypoint is None
    assert config.config.cmd == ("sh",)
    assert parse_config(dump_config(config)) == config
    assert dump_config(parse_config(dump_config(config))) == dump_config(config)


def test_null_in_a_config_is_absent() -> None:
    config = parse_config(b'{"config":{"Env":null,"Labels":null,"Volumes":null,"Cmd":null},"rootfs":{}}')
    assert config.config.env == ()
    assert config.config.cmd is None


def test_a_descriptor_is_written_as_it_was_read() -> None:
    record = {
        "mediaType": media_types.OCI_LAYER_GZIP,
        "digest": A,
        "size": 5,
        "urls": ["https://example.com/x"],
        "annotations": {"k": "v"},
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
        "artifactType": "application/x",
    }
    assert parse_descriptor(record).to_json() == record


def _descriptor(digest: Digest) -> dict[str, object]:
    return {"mediaType": media_types.OCI_LAYER, "digest": digest, "size": 1}


def _made(digest: Digest) -> Descriptor:
    return Descriptor(media_types.OCI_LAYER_GZIP, digest, 1)


def _registry():  # type: ignore[no-untyped-def]
    """The schemas refer to each other by file name below their id."""
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT4

    def retrieve(uri: str) -> Resource[object]:
        name = uri.rpartition("/")[2]
        return Resource.from_contents(
            json.loads(shared_data(f"spec/oci/image/{name}").read_text()), default_specification=DRAFT4
        )

    return Registry(retrieve=retrieve)
