"""Judged by skopeo, buildah and Debian's docker-registry: they read what we write, and we read what they write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images import Images
from runtime.images.transport import RegistryTransport
from runtime.store import Store
from tests.component.images.test_images import LAYER_1, LAYER_2, build, load
from tests.support.registry import ForeignRegistry, docker_registry
from tests.support.store import make_image, tree

pytestmark = [pytest.mark.linux, pytest.mark.peer]


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ForeignRegistry]:
    with docker_registry(tmp_path) as running:
        yield running


@pytest.fixture
def images(store: Store) -> Iterator[Images]:
    transport = RegistryTransport()
    try:
        yield Images(store, transport)
    finally:
        transport.close()


@pytest.fixture
def skopeo(tmp_path: Path) -> object:
    need("skopeo")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run(*arguments: str) -> str:
        command = ["skopeo", "--policy", str(policy), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def buildah(tmp_path: Path) -> object:
    need("buildah")
    base = tmp_path / "buildah"
    base.mkdir()
    (base / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run(*arguments: str, check: bool = True) -> str:
        command = [
            "buildah",
            "--root",
            str(base / "root"),
            "--runroot",
            str(base / "run"),
            "--storage-driver",
            "vfs",
        ]
        options = []
        if arguments[0] in ("from", "push", "pull"):
            options = ["--tls-verify=false", "--signature-policy", str(base / "policy.json")]
        elif arguments[0] == "commit":
            options = ["--signature-policy", str(base / "policy.json")]
        done = subprocess.run(
            [*command, arguments[0], *options, *arguments[1:]], capture_output=True, text=True,
            env=os.environ | {"TMPDIR": str(tmp_path), "BUILDAH_ISOLATION": "chroot"},
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    yield run
    run("umount", "--all", check=False)
    run("rm", "--all", check=False)


def inspected(skopeo, name: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
    return json.loads(skopeo("inspect", "--tls-verify=false", name))  # type: ignore[no-any-return]


def test_skopeo_reads_pushed_and_pulled_images_from_the_store_itself(
    images: Images,
    registry: ForeignRegistry,
    skopeo,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    image = build(images, "a", "b")
    images.tag(image.id, f"{registry.host}/made/here:1")
    pushed = images.push(f"{registry.host}/made/here:1")
    assert inspected(skopeo, f"docker://{registry.host}/made/here:1")["Digest"] == pushed.digest
    assert (
        inspected(skopeo, f"oci:{images.store.root}:{registry.host}/made/here:1")["Digest"] == pushed.digest
    )
    with Store.open(str(tmp_path / "other")) as other:
        pulled = Images(other, images.transport).pull(f"{registry.host}/made/here:1")
        assert pulled.id == image.id
        skopeo("copy", f"oci:{other.root}:{registry.host}/made/here:1", f"dir:{tmp_path}/copy")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["config"]["digest"] == image.id


def test_skopeo_reads_our_archives_and_we_read_its(images: Images, skopeo, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image = build(images, "a", "b")
    images.tag(image.id, "one:1")
    images.manifest(image)
    for kind, docker in (("docker-archive", True), ("oci-archive", False)):
        ours, theirs = tmp_path / f"ours-{kind}", tmp_path / f"theirs-{kind}"
        with open(ours, "wb") as file:
            images.save(["one:1"], file, docker=docker)
        assert inspected(skopeo, f"{kind}:{ours}")["Layers"]
        skopeo("copy", f"{kind}:{ours}", f"{kind}:{theirs}:docker.io/library/two:2")
        with Store.open(str(tmp_path / f"store-{kind}")) as other, open(theirs, "rb") as stream:
            (loaded,) = Images(other).load(stream)
            assert (loaded.id, loaded.tags) == (image.id, ("docker.io/library/two:2",))
            assert Images(other).snapshot(loaded) is not None


def test_an_image_of_ours_is_the_same_tree_in_buildah(
    images: Images,
    registry: ForeignRegistry,
    buildah,  # type: ignore[no-untyped-def]
) -> None:
    name = f"{registry.host}/layers:1"
    image = load(images, make_image(LAYER_1, LAYER_2), name)
    images.push(name)
    container = buildah("from", "--pull-always", f"docker://{name}")
    mounted = buildah("mount", container)
    top = images.snapshot(image)
    assert top is not None
    with images.store.snapshots.mounted(top) as merged:
        ours, theirs = tree(merged), tree(mounted)
    # containers/storage gives the image's root directories it makes itself other times.
    assert {path: entry[:6] for path, entry in ours.items()} == {
        path: entry[:6] for path, entry in theirs.items()
    }


def test_an_image_buildah_made_is_pulled_and_pushed_on_unchanged(
    images: Images,
    registry: ForeignRegistry,
    buildah,
    skopeo,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(os.urandom(50_000))
    os.chmod(root / "bin" / "tool", 0o4755)
    container = buildah("from", "scratch")
    buildah("copy", container, str(root), "/")
    buildah("config", "--cmd", "/bin/tool", "--label", "made=by buildah", container)
    for form in ("oci", "docker"):
        name = f"{registry.host}/{form}/made:1"
        made = f"made-{form}"
        buildah("commit", "--format", form, container, made)
        buildah("push", made, f"docker://{name}")
        image = images.pull(name)
        assert image.config.config.labels["made"] == "by buildah"
        top = images.snapshot(image)
        assert top is not None
        assert (
            tree(images.store.snapshots.path(top), times=False)["bin/tool"]
            == tree(root, times=False)["bin/tool"]
        )
        copied = images.push(name, f"{registry.host}/{form}/copied:2")
        digests = {
            inspected(skopeo, f"docker://{registry.host}/{form}/{n}")["Digest"]
            for n in ("made:1", "copied:2")
        }
        assert digests == {copied.digest}
