"""Judged by Docker: config and history of images it built from the same Dockerfiles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry_client.oci.config import ContainerConfig, container_config_to_json
from tests.support import REPOSITORY
from tests.support.dockerfile import created, lowered

CASES = json.loads((REPOSITORY / "tests" / "data" / "dockerfile" / "lowered-by-docker.json").read_text())
BUSYBOX = {
    "docker.io/bench/busybox:1": ContainerConfig(
        env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",), cmd=("/bin/sh",)
    )
}


def options_of(flags: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"build_args": {}, "labels": {}}
    for flag, value in zip(flags[::2], flags[1::2]):
        if flag == "--target":
            options["target"] = value
            continue
        name, _, text = value.partition("=")
        options["build_args" if flag == "--build-arg" else "labels"][name] = text
    return options


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_config_and_history_are_those_docker_makes(case: dict[str, Any]) -> None:
    graph = lowered(case["dockerfile"], BUSYBOX, **options_of(case["flags"]))
    config = container_config_to_json(graph.config.config)
    assert {key: value for key, value in config.items() if value} == case["config"]
    assert graph.config.author == case["author"]
    assert comparable(created(graph)) == comparable(case["history"])


def comparable(history: list[str]) -> list[str]:
    """`docker history` shows tabs as blanks; the text of HEALTHCHECK changed in later versions of BuildKit."""
    return ["HEALTHCHECK" if text.startswith("HEALTHCHECK") else text.replace("\t", " ") for text in history]
