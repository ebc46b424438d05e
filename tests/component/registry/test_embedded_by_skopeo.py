"""The embedded registry judged by skopeo."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_client.oci import media_types
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import Manifest, parse_manifest
from tests.component.registry.test_built_images import build_several
from tests.support.embedded_registry import Served, embedded_registry
from tests.support.registry import docker_registry
from tests.support.registry_images import small_image

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="Debian's package skopeo is not installed"),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path) as running:
        yield running


def skopeo(verb: str, *arguments: str) -> str:
    tls = {"copy": ["--src-tls-verify=false", "--dest-tls-verify=false"]}.get(verb, ["--tls-verify=false"])
    done = subprocess.run(
        ["skopeo", "--insecure-policy", verb, *tls, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_inspects_what_we_pushed(served: Served) -> None:
    image = small_image()
    served.push("shop/app", "1", image)
    found = json.loads(skopeo("inspect", f"docker://{served.host}/shop/app:1"))
    assert found["Digest"] == image.manifest.digest
    assert found["RepoTags"] == ["1"]
    assert json.loads(skopeo("list-tags", f"docker://{served.host}/shop/app"))["Tags"] == ["1"]


def test_skopeo_copies_out_and_back_in_without_changing_a_byte(served: Served, tmp_path: Path) -> None:
    image = small_image()
    served.push("shop/app", "1", image)
    layout = f"oci:{tmp_path / 'layout'}:x"
    skopeo("copy", f"docker://{served.host}/shop/app:1", layout)
    skopeo("copy", layout, f"docker://{served.host}/copied/there:2")
    assert served.client.manifest("copied/there", "2")[2] == image.manifest.digest
    assert served.images.get("copied/there:2").id == served.images.get("shop/app:1").id


def test_skopeo_copies_within_and_deletes(served: Served) -> None:
    served.push("shop/app", "1", small_image())
    skopeo("copy", f"docker://{served.host}/shop/app:1", f"docker://{served.host}/shop/copy:1")
    skopeo("delete", f"docker://{served.host}/shop/copy:1")
    assert served.client.catalog() == ("shop/app",)


def test_skopeo_gets_every_platform_of_a_name_and_brings_it_back(served: Served, tmp_path: Path) -> None:
    built = build_several(served)
    layout = f"oci:{tmp_path / 'layout'}:x"
    skopeo("copy", "--all", f"docker://{served.host}/shop/app:1", layout)
    skopeo("copy", "--all", layout, f"docker://{served.host}/copied/there:2")
    assert served.client.manifest("copied/there", "2")[2] == served.client.manifest("shop/app", "1")[2]
    there = served.images.records.variants("docker.io/copied/there:2")
    assert there == [image.id for image in built]


def test_skopeo_pushes_dockers_format_too(served: Served, tmp_path: Path) -> None:
    served.push("shop/app", "1", small_image())
    layout = f"dir:{tmp_path / 'directory'}"
    skopeo("copy", "--format", "v2s2", f"docker://{served.host}/shop/app:1", layout)
    skopeo("copy", "--format", "v2s2", layout, f"docker://{served.host}/shop/docker:1")
    raw, kind, digest = served.client.manifest("shop/docker", "1")
    assert kind == media_types.DOCKER_MANIFEST
    assert digest == digest_of(raw)
    assert served.images.get("shop/docker:1").id == served.images.get("shop/app:1").id


def test_skopeo_carries_images_between_a_foreign_registry_and_ours(served: Served, tmp_path: Path) -> None:
    image = small_image()
    served.push("shop/app", "1", image)
    with docker_registry(tmp_path) as foreign:
        skopeo("copy", f"docker://{served.host}/shop/app:1", f"docker://{foreign.host}/there/app:1")
        skopeo("copy", f"docker://{foreign.host}/there/app:1", f"docker://{served.host}/back/app:1")
    manifest = parse_manifest(served.client.manifest("back/app", "1")[0])
    assert isinstance(manifest, Manifest)
    assert manifest.digest == image.manifest.digest


def test_skopeo_reads_a_pushed_image_from_the_store_itself(served: Served, tmp_path: Path) -> None:
    image = small_image()
    served.push("shop/app", "1", image)
    skopeo("copy", f"oci:{served.store.root}:shop/app:1", f"dir:{tmp_path / 'directory'}")
    assert (tmp_path / "directory" / "manifest.json").read_bytes() == image.manifest.raw
