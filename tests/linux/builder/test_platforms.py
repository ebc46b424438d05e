"""Images of several platforms: one index, split directories, and the hint for what this host cannot run (A-95 … A-97)."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_client.oci.platform import host_platform
from tests.support.builder import BUSYBOX, build, config_of, run_pipe, write_files
from tests.support.registry import docker_registry

pytestmark = pytest.mark.linux
BOTH = "linux/amd64,linux/arm64"
FOREIGN = "linux/s390x"
DOCKERFILE = """FROM --platform=$BUILDPLATFORM scratch AS build
ARG TARGETARCH
COPY for-$TARGETARCH /out/arch
FROM scratch
COPY --from=build /out /
COPY same /same
"""


@pytest.fixture(scope="module")
def root(host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("platforms") / "store"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"Dockerfile": DOCKERFILE, "for-amd64": "amd64\n", "for-arm64": "arm64\n", "same": "same\n"}
    return write_files(tmp_path_factory.mktemp("context"), files)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


def skopeo_json(*arguments: str) -> Any:
    done = subprocess.run(["skopeo", *arguments], check=True, capture_output=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.peer
def test_a_push_of_two_platforms_is_one_index_others_pick_from(
    root: Path, context: Path, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/two/app:1"
    build(root, context, "--platform", BOTH, "-t", name, "--push")
    index = skopeo_json("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    platforms = [
        f"{each['platform']['os']}/{each['platform']['architecture']}" for each in index["manifests"]
    ]
    assert platforms == BOTH.split(",")
    for arch in ("amd64", "arm64"):
        config = skopeo_json(
            "inspect", "--config", "--override-arch", arch, "--tls-verify=false", f"docker://{name}"
        )
        assert config["architecture"] == arch
        run_pipe(tmp_path / arch, "pull", "--platform", f"linux/{arch}", name)
        assert config_of(tmp_path / arch, name)["architecture"] == arch


@pytest.mark.peer
def test_a_name_built_for_two_platforms_is_pushed_as_their_index_or_one_of_them(
    tmp_path: Path, context: Path, registry: str
) -> None:
    root, name = tmp_path / "store", f"{registry}/later/app:1"
    build(root, context, "--platform", BOTH, "-t", name)
    run_pipe(root, "tag", name, f"{registry}/later/app:2")
    digests = [run_pipe(root, "push", name.replace(":1", f":{n}")).stdout.strip() for n in (1, 2, 1)]
    assert len(set(digests)) == 1
    for tag in ("1", "2"):
        index = skopeo_json("inspect", "--raw", "--tls-verify=false", f"docker://{registry}/later/app:{tag}")
        assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    run_pipe(root, "push", "--platform", "linux/arm64", name, f"{registry}/later/arm:1")
    alone = skopeo_json("inspect", "--raw", "--tls-verify=false", f"docker://{registry}/later/arm:1")
    assert "manifests" not in alone
    config = skopeo_json("inspect", "--config", "--tls-verify=false", f"docker://{registry}/later/arm:1")
    assert config["architecture"] == "arm64"
    refused = run_pipe(root, "push", "--platform", FOREIGN, name, code=2)
    assert b"has no image for linux/s390x" in refused.stderr and b"linux/amd64, linux/arm64" in refused.stderr


def test_the_images_of_a_name_stay_with_it_and_go_with_it(tmp_path: Path, context: Path) -> None:
    root = tmp_path / "store"
    build(root, context, "--platform", BOTH, "-t", "both:1")
    assert run_pipe(root, "image", "prune", "-f").stdout.decode().count("Deleted") == 0
    assert len(run_pipe(root, "images", "-q").stdout.split()) == 2
    gone = run_pipe(root, "rmi", "both:1").stdout.decode()
    assert gone.count("Deleted") == 2
    assert run_pipe(root, "images", "-q").stdout == b""


def test_a_name_that_moves_no_longer_stands_for_the_platforms_it_had(tmp_path: Path, context: Path) -> None:
    root = tmp_path / "store"
    build(root, context, "--platform", BOTH, "-t", "both:1")
    build(root, context, "-t", "both:1")
    run_pipe(root, "image", "prune", "-f")
    assert len(run_pipe(root, "images", "-q").stdout.split()) == 1


@pytest.mark.peer
def test_buildah_reads_the_index(root: Path, context: Path, registry: str) -> None:
    name = f"{registry}/two/buildah:1"
    build(root, context, "--platform", BOTH, "-t", name, "--push")
    # Podman's family refuses a run root whose path is longer than 50 characters.
    place = tempfile.mkdtemp(prefix="pipe-buildah-")
    store = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
    settings = Path(place) / "registries.conf"
    settings.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    try:
        done = subprocess.run(
            ["buildah", "--registries-conf", str(settings), *store, "manifest", "inspect", name],
            check=True,
            capture_output=True,
            timeout=120,
        )
        found = json.loads(done.stdout)
        assert [each["platform"]["architecture"] for each in found["manifests"]] == ["amd64", "arm64"]
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.peer
def test_an_index_can_be_pushed_by_its_digest_alone(
    root: Path, context: Path, registry: str, tmp_path: Path
) -> None:
    metadata = tmp_path / "meta.json"
    name = f"{registry}/two/digest"
    out = f"type=image,name={name},push=true,push-by-digest=true"
    build(root, context, "--platform", BOTH, "-o", out, "--metadata-file", str(metadata))
    said = json.loads(metadata.read_text())
    digest = said["containerimage.digest"]
    assert said["containerimage.descriptor"]["digest"] == digest
    assert {f"buildx.build.provenance/{each}" for each in BOTH.split(",")} <= said.keys()
    index = skopeo_json("inspect", "--raw", "--tls-verify=false", f"docker://{name}@{digest}")
    assert len(index["manifests"]) == 2
    done = subprocess.run(
        ["skopeo", "list-tags", "--tls-verify=false", f"docker://{name}"], capture_output=True, timeout=120
    )
    # A repository without a tag is no error to some versions, and one to others.
    assert not (json.loads(done.stdout).get("Tags") if done.returncode == 0 else [])


@pytest.mark.peer
def test_an_archive_of_two_platforms_is_loaded_for_this_host(
    root: Path, context: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "two.tar"
    build(root, context, "--platform", BOTH, "-t", "example.org/two:1", "-o", f"type=oci,dest={archive}")
    assert len(skopeo_json("inspect", "--raw", f"oci-archive:{archive}")["manifests"]) == 2
    run_pipe(tmp_path / "other", "load", "-i", str(archive))
    assert config_of(tmp_path / "other", "example.org/two:1")["architecture"] == host_platform().architecture


def test_directories_and_tars_are_split_by_platform(root: Path, context: Path, tmp_path: Path) -> None:
    run_pipe(root, "build", "--platform", BOTH, "-o", str(tmp_path / "out"), str(context))
    assert sorted(os.listdir(tmp_path / "out")) == ["linux_amd64", "linux_arm64"]
    assert (tmp_path / "out/linux_arm64/arch").read_text() == "arm64\n"
    done = run_pipe(root, "build", "--platform", BOTH, "-o", "type=tar,dest=-", str(context))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = set(archive.getnames())
    assert {"linux_amd64", "linux_amd64/arch", "linux_arm64/arch", "linux_arm64/same"} <= names


def test_one_platform_is_split_only_when_asked(root: Path, context: Path, tmp_path: Path) -> None:
    build(root, context, "--platform", "linux/arm64", "-o", f"type=local,dest={tmp_path},platform-split=true")
    assert os.listdir(tmp_path) == ["linux_arm64"]
    done = run_pipe(
        root,
        "build",
        "--platform",
        BOTH,
        "-o",
        f"type=local,dest={tmp_path},platform-split=false",
        str(context),
        code=2,
    )
    assert b"overwrite each other" in done.stderr


def test_a_name_in_the_store_means_what_this_host_runs(root: Path, context: Path) -> None:
    host = str(host_platform())
    other = next(each for each in BOTH.split(",") if each != host)
    build(root, context, "--platform", f"{other},{host}", "-t", "named:1")
    assert config_of(root, "named:1")["architecture"] == host_platform().architecture


def test_what_platforms_share_is_built_once(root: Path, tmp_path: Path) -> None:
    shared = "FROM --platform=$BUILDPLATFORM scratch AS s\nCOPY a /a\nFROM scratch\nCOPY --from=s /a /b\n"
    context = write_files(tmp_path / "c", {"Dockerfile": shared, "a": os.urandom(8)})
    done = run_pipe(root, "build", "--platform", BOTH, str(context))
    assert (done.stdout + done.stderr).count(b"COPY a /a") == 1


def test_a_step_for_a_platform_this_host_cannot_run_says_what_to_do(root: Path, tmp_path: Path) -> None:
    if any("s390x" in name for name in _binfmt()):
        pytest.skip("this host runs programs of s390x")
    program = bytearray(Path(BUSYBOX).read_bytes()[:64])
    program[5], program[18:20] = 2, b"\x00\x16"  # big endian, EM_S390
    context = write_files(
        tmp_path / "c",
        {"sh": bytes(program), "Dockerfile": "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN true\n"},
    )
    done = run_pipe(root, "build", "--platform", FOREIGN, str(context), code=1)
    assert b"install binfmt" in done.stderr
    assert b"$BUILDPLATFORM" in done.stderr


def _binfmt() -> list[str]:
    try:
        return os.listdir("/proc/sys/fs/binfmt_misc")
    except FileNotFoundError:
        return []


@pytest.mark.peer
def test_a_digest_of_two_platforms_means_what_this_host_runs(
    root: Path, context: Path, registry: str, tmp_path: Path
) -> None:
    host = str(host_platform())
    other = next(each for each in BOTH.split(",") if each != host)
    name, metadata = f"{registry}/two/by-digest", tmp_path / "meta.json"
    flags = ("--platform", f"{other},{host}", "--push", "--metadata-file", str(metadata))
    build(root, context, "-t", f"{name}:1", *flags)
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    assert config_of(root, f"{name}@{digest}")["architecture"] == host_platform().architecture
