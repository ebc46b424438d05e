"""Provenance and bills of material as BuildKit attaches them, and every form an image can be written in (B-14 … B-17)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from registry_client.oci.platform import host_platform
from tests.support.builder import build, config_of, run_pipe, write_files
from tests.support.registry import docker_registry
from tests.support.spdx import check_spdx

pytestmark = pytest.mark.linux
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
HOST = host_platform()
SLSA, SPDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
DOCKERFILE = """FROM scratch AS base
COPY root /
FROM base
ARG FLAVOUR=plain
LABEL flavour=$FLAVOUR
COPY a /a
"""
STATUS = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7.88.1-10\n"


@pytest.fixture(scope="module")
def root(host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attestations") / "store"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {
        "Dockerfile": DOCKERFILE,
        "a": "a\n" * 5000,
        "root/etc/os-release": "ID=debian\nVERSION_ID=12\n",
        "root/var/lib/dpkg/status": STATUS,
        "root/srv/node_modules/left-pad/package.json": '{"name": "left-pad", "version": "1.3.0"}',
    }
    return write_files(tmp_path_factory.mktemp("context"), files)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


class Layout:
    """An OCI layout in a directory, every digest checked as it is read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.entry = json.loads((directory / "index.json").read_bytes())["manifests"][0]
        self.top = self.blob(self.entry["digest"])

    def blob(self, digest: str) -> Any:
        import hashlib

        raw = (self._directory / "blobs" / digest.replace(":", "/")).read_bytes()
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest
        return json.loads(raw)

    def attestation(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first attestation's entry in the index and its manifest."""
        entry = next(each for each in self.top["manifests"] if each["platform"]["os"] == "unknown")
        return entry, self.blob(entry["digest"])

    def statements(self) -> dict[str, Any]:
        _, manifest = self.attestation()
        return {
            each["annotations"]["in-toto.io/predicate-type"]: self.blob(each["digest"])
            for each in manifest["layers"]
        }


def layout(
    root: Path, context: Path, place: Path, *arguments: str, output: str = "", **settings: Any
) -> Layout:
    build(root, context, "-o", f"type=oci,tar=false,dest={place}{output}", *arguments, **settings)
    return Layout(place)


def test_an_attestation_is_a_manifest_of_no_platform_that_names_its_image(
    root: Path, context: Path, tmp_path: Path
) -> None:
    made = layout(
        root, context, tmp_path / "o", "-t", "example.org/app:1", "--provenance=true", "--sbom=true"
    )
    image = made.top["manifests"][0]
    entry, manifest = made.attestation()
    assert entry["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert entry["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    }
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.in-toto+json"}
    config = made.blob(manifest["config"]["digest"])
    assert config["os"] == config["architecture"] == "unknown"
    assert config["rootfs"]["diff_ids"] == [each["digest"] for each in manifest["layers"]]
    for kind, statement in made.statements().items():
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["predicateType"] == kind
        assert statement["subject"] == [
            {
                "name": f"pkg:docker/example.org/app@1?platform={quote(str(HOST), safe='')}",
                "digest": {"sha256": image["digest"].partition(":")[2]},
            }
        ]
    assert made.statements().keys() == {SLSA, SPDX}


def test_the_bill_of_material_lists_what_is_in_the_image(root: Path, context: Path, tmp_path: Path) -> None:
    document = layout(root, context, tmp_path / "o", "--sbom=true").statements()[SPDX]["predicate"]
    check_spdx(document)
    found = {ref["referenceLocator"] for each in document["packages"] for ref in each.get("externalRefs", ())}
    assert found == {"pkg:deb/debian/curl@7.88.1-10?arch=amd64&distro=debian-12", "pkg:npm/left-pad@1.3.0"}


def test_provenance_says_what_was_asked_and_max_says_how_it_went(
    root: Path, context: Path, tmp_path: Path
) -> None:
    flags = ("--build-arg", "FLAVOUR=private", "--label", "x=y", "--target", "")
    least = layout(root, context, tmp_path / "min", "--provenance=min", *flags).statements()[SLSA][
        "predicate"
    ]
    definition, metadata = least["buildDefinition"], least["runDetails"]["metadata"]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    request = definition["externalParameters"]["request"]
    assert request == {
        "frontend": "dockerfile.v0",
        "args": {},
        "locals": [{"name": "context"}, {"name": "dockerfile"}],
    }
    assert metadata["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert metadata["buildkit_hermetic"] is True
    assert metadata["startedOn"] <= metadata["finishedOn"]
    assert "private" not in json.dumps(least)

    most = layout(root, context, tmp_path / "max", "--provenance=mode=max,builder-id=urn:me", *flags)
    predicate = most.statements()[SLSA]["predicate"]
    definition, metadata = predicate["buildDefinition"], predicate["runDetails"]["metadata"]
    assert definition["externalParameters"]["request"]["args"] == {
        "build-arg:FLAVOUR": "private",
        "label:x": "y",
    }
    assert predicate["runDetails"]["builder"] == {"id": "urn:me"}
    assert metadata["buildkit_completeness"]["request"] is True
    steps = definition["internalParameters"]["buildConfig"]["steps"]
    last = steps[-1]
    assert last["op"]["is"] == "Copy"
    known = {each["id"] for each in steps}
    assert {each.removesuffix(":0") for step in steps for each in step["inputs"]} <= known
    lines = metadata["buildkit_metadata"]["source"]["locations"][last["id"]]["locations"][0]["ranges"]
    assert lines == [{"start": {"line": 6}, "end": {"line": 6}}]
    manifest = most.blob(most.top["manifests"][0]["digest"])
    assert metadata["buildkit_metadata"]["layers"][f"{last['id']}:0"] == [manifest["layers"]]


def test_a_base_image_is_a_dependency_with_its_digest(root: Path, context: Path, tmp_path: Path) -> None:
    build(root, context, "-t", "example.org/below:1")
    child = write_files(tmp_path / "c", {"Dockerfile": "FROM example.org/below:1\nCOPY Dockerfile /\n"})
    made = layout(root, child, tmp_path / "o", "--provenance=true").statements()[SLSA]["predicate"]
    (dependency,) = made["buildDefinition"]["resolvedDependencies"]
    assert dependency["uri"] == f"pkg:docker/example.org/below@1?platform={quote(str(HOST), safe='')}"
    assert len(dependency["digest"]["sha256"]) == 64


def test_secrets_are_named_and_never_told(root: Path, base_store: Path, tmp_path: Path) -> None:
    text = "FROM base:1\nRUN --mount=type=secret,id=token,required=true test -s /run/secrets/token\n"
    context = write_files(tmp_path / "c", {"Dockerfile": text, "token": "very-secret-value"})
    secret = ("--secret", f"id=token,src={context / 'token'}")
    made = layout(base_store, context, tmp_path / "o", "--provenance=mode=max", *secret)
    predicate = made.statements()[SLSA]["predicate"]
    assert predicate["buildDefinition"]["externalParameters"]["request"]["secrets"] == [{"id": "token"}]
    assert predicate["runDetails"]["metadata"]["buildkit_hermetic"] is False
    assert "very-secret-value" not in json.dumps(predicate)


def test_with_an_epoch_everything_has_the_same_bytes_every_time(
    context: Path, host: None, tmp_path: Path
) -> None:
    flags = (
        "--provenance=mode=max",
        "--sbom=true",
        "--platform",
        "linux/amd64,linux/arm64",
        "-t",
        "example.org/app:1",
    )
    archives = [
        run_pipe(tmp_path / f"store{n}", "build", "-o", "type=oci,dest=-,rewrite-timestamp=true", *flags, str(context), env=EPOCH).stdout
        for n in range(2)
    ]  # fmt: skip
    assert archives[0] == archives[1]


def test_directories_and_tars_get_their_attestations_as_files(
    root: Path, context: Path, tmp_path: Path
) -> None:
    flags = ("--provenance=true", "--sbom=true")
    build(root, context, "-o", f"type=local,dest={tmp_path / 'out'},attestation-prefix=x.", *flags)
    statement = json.loads((tmp_path / "out/x.provenance.json").read_text())
    assert "a" in {each["name"] for each in statement["subject"]}
    check_spdx(json.loads((tmp_path / "out/x.sbom.spdx.json").read_text())["predicate"])
    build(root, context, "-o", f"type=tar,dest={tmp_path / 'out.tar'}", *flags)
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "out.tar"], check=True, capture_output=True, timeout=60
    ).stdout
    assert {b"a", b"provenance.json", b"sbom.spdx.json"} <= set(listed.split())


def test_the_image_in_the_store_is_the_same_with_and_without(root: Path, context: Path) -> None:
    plain = build(root, context)
    done = run_pipe(root, "build", "--provenance=true", str(context))
    assert plain.encode() in done.stdout + done.stderr
    assert b"no output carries the attestation" in done.stdout + done.stderr


@pytest.mark.peer
def test_a_registry_takes_an_attested_image_and_all_pull_the_image_itself(
    root: Path, context: Path, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/attested/app:1"
    image = build(root, context, "-t", name, "--push", "--provenance=true", "--sbom=true")
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True, timeout=120
    ).stdout  # fmt: skip
    assert [each["platform"]["os"] for each in json.loads(raw)["manifests"]] == ["linux", "unknown"]
    run_pipe(tmp_path / "other", "pull", name)
    assert config_of(tmp_path / "other", name) == config_of(root, image)
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    copied = f"dir:{tmp_path / 'all'}"
    # Copying all checks every digest, the attestations' too.
    subprocess.run(
        ["skopeo", "--policy", str(policy), "copy", "--all", "--src-tls-verify=false", f"docker://{name}", copied],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    # Not podman: all of its processes share locks in /dev/shm, whatever store they are on. A long run root is refused.
    place = tempfile.mkdtemp(prefix="pipe-buildah-")
    store = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
    try:
        pulled = subprocess.run(
            ["buildah", *store, "pull", "-q", "--tls-verify=false", name],
            check=True,
            capture_output=True,
            timeout=240,
        )
        assert pulled.stdout.decode().strip() == image.removeprefix("sha256:")
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.peer
def test_an_attestation_as_an_artifact_refers_to_its_image(
    root: Path, context: Path, registry: str, tmp_path: Path
) -> None:
    made = layout(root, context, tmp_path / "o", "--provenance=true", output=",oci-artifact=true")
    _, manifest = made.attestation()
    assert manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    assert manifest["subject"]["digest"] == made.top["manifests"][0]["digest"]
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    name = f"{registry}/artifact/app"
    build(root, context, "--provenance=true", "-o", f"type=registry,name={name},oci-artifact=true")


# --- forms of the image itself ------------------------------------------------------------------------------------


@pytest.mark.peer
def test_dockers_media_types_are_written_when_asked(
    root: Path, context: Path, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/forms/docker:1"
    build(
        root,
        context,
        "-o",
        f"type=registry,name={name},oci-mediatypes=false",
        "--platform",
        "linux/amd64,linux/arm64",
    )
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True, timeout=120
    ).stdout  # fmt: skip
    index = json.loads(raw)
    assert index["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert {each["mediaType"] for each in index["manifests"]} == {
        "application/vnd.docker.distribution.manifest.v2+json"
    }
    run_pipe(tmp_path / "other", "pull", name)
    again = run_pipe(tmp_path / "other", "build", "-q", "--pull", "-", stdin=f"FROM {name}\n".encode())
    assert again.stdout.startswith(b"sha256:")


def test_levels_make_layers_smaller_and_change_nothing_for_others(
    root: Path, context: Path, tmp_path: Path
) -> None:
    def sizes(name: str, output: str) -> list[int]:
        made = layout(root, context, tmp_path / name, output=output)
        return [each["size"] for each in made.top["layers"]]

    before = sizes("before", "")
    fast, small = sizes("fast", ",compression-level=1"), sizes("small", ",compression-level=9")
    assert sum(small) < sum(fast)
    assert sizes("after", "") == before
    assert sizes("zstd", ",compression=zstd,compression-level=19,force-compression=true") != before


def test_annotations_reach_every_place_they_can_stand(root: Path, context: Path, tmp_path: Path) -> None:
    flags = (
        "--platform",
        "linux/amd64,linux/arm64",
        "--annotation",
        "manifest[linux/arm64]:arm=1",
        "--annotation",
        "index:i=2",
    )
    fields = ",annotation.all=3,annotation-manifest-descriptor.d=4,annotation-index-descriptor.e=5"
    made = layout(root, context, tmp_path / "o", *flags, output=fields)
    assert made.top["annotations"] == {"i": "2"}
    assert [each["annotations"] for each in made.top["manifests"]] == [{"d": "4"}, {"d": "4"}]
    manifests = [made.blob(each["digest"]) for each in made.top["manifests"]]
    assert [each["annotations"] for each in manifests] == [{"all": "3"}, {"all": "3", "arm": "1"}]
    assert made.entry["annotations"]["e"] == "5"


def test_an_index_annotation_without_an_index_is_told(root: Path, context: Path, tmp_path: Path) -> None:
    out = f"type=oci,dest={tmp_path / 'o.tar'}"
    done = run_pipe(root, "build", "-o", out, "--annotation", "index:a=b", str(context), code=2)
    assert b"annotations of an index need one" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.peer
def test_an_annotated_image_is_pushed_as_it_was_annotated(root: Path, context: Path, registry: str) -> None:
    name = f"{registry}/forms/annotated:1"
    build(root, context, "-t", name, "--annotation", "org.opencontainers.image.title=A title")
    run_pipe(root, "push", name)
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True, timeout=120
    ).stdout  # fmt: skip
    assert json.loads(raw)["annotations"] == {"org.opencontainers.image.title": "A title"}


def test_several_outputs_come_from_one_build(root: Path, context: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "meta.json"
    names = '"name=example.org/a:1,example.org/b:2"'
    outputs = (
        f"type=oci,dest={tmp_path / 'o.tar'}",
        f"type=docker,dest={tmp_path / 'd.tar'}",
        f"type=image,{names}",
    )
    flags = [flag for each in outputs for flag in ("-o", each)]
    image = build(root, context, *flags, "-o", str(tmp_path / "dir"), "--metadata-file", str(metadata))
    said = json.loads(metadata.read_text())
    assert said["containerimage.config.digest"] == image
    assert said["image.name"] == "example.org/a:1,example.org/b:2"
    assert said["containerimage.descriptor"]["platform"] == {"architecture": HOST.architecture, "os": "linux"}
    assert (
        said["buildx.build.provenance"]["buildDefinition"]["externalParameters"]["request"]["frontend"]
        == "dockerfile.v0"
    )
    assert (tmp_path / "dir/a").exists()
    assert config_of(root, "example.org/b:2") == config_of(root, "example.org/a:1")


def test_provenance_of_a_work_tree_says_at_which_commit_it_is(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"})
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> str:
        author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", *author, *arguments], cwd=context, env=env, check=True, capture_output=True, timeout=60
        )
        return done.stdout.decode().strip()

    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", "https://me:token@example.org/a.git")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "HEAD")
    for name, revision in (("clean", commit), ("dirty", f"{commit}-dirty")):
        made = layout(root, context, tmp_path / name, "--provenance=true").statements()[SLSA]["predicate"]
        told = made["runDetails"]["metadata"]["buildkit_metadata"]["vcs"]
        assert told == {"source": "https://example.org/a.git", "revision": revision}
        write_files(context, {"b": "2"})
