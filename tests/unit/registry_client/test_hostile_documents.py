"""Configs and manifests that are JSON, but not what they should be: found by fuzzing (tests/fuzz)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry_client.oci.config import parse_config
from registry_client.oci.manifest import parse_manifest
from registry_client.reference import parse_reference

DIGEST = "sha256:" + "a" * 64
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 1}


@pytest.mark.parametrize(
    "record",
    [
        {"rootfs": []},
        {"rootfs": ["x"]},
        {"rootfs": {"diff_ids": 5}},
        {"rootfs": {"diff_ids": {"a": 1}}},
        {"config": ["x"]},
        {"config": "x"},
        {"history": [5]},
        {"history": {"a": "b"}},
        {"config": {"Labels": ["a"]}},
        {"config": {"Env": 5}},
        {"config": {"Healthcheck": [1]}},
        {"config": {"Healthcheck": {"Interval": [1]}}},
        {"config": {"Healthcheck": {"Interval": 1e999}}},
        {"config": {"ExposedPorts": 80}},
    ],
    ids=json.dumps,
)
def test_a_config_of_the_wrong_shape_is_refused_or_read(record: dict[str, Any]) -> None:
    try:
        parse_config(json.dumps(record).encode())
    except ValueError as error:
        assert str(error)
    else:
        assert not any(record.values()), "only something empty may pass for nothing"


@pytest.mark.parametrize(
    "record",
    [
        {"mediaType": []},
        {"mediaType": {"a": 1}, "config": LAYER},
        {"config": LAYER, "layers": 5},
        {"config": LAYER, "layers": {"a": 1}},
        {"config": LAYER, "annotations": ["x"]},
        {"config": {**LAYER, "urls": 5}},
        {"config": {**LAYER, "size": 10**30}},
        {"config": {**LAYER, "annotations": "x"}},
        {"manifests": 1},
        {"manifests": [1]},
        {"config": LAYER, "subject": "x"},
    ],
    ids=json.dumps,
)
def test_a_manifest_of_the_wrong_shape_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_manifest(json.dumps(record).encode())


@pytest.mark.parametrize(
    "text", ["docker.io/a.b/c", "docker.io/localhost/c", "docker.io/library/x", "docker.io/x/y"]
)
def test_the_short_name_means_the_same_image(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(reference.familiar) == reference
