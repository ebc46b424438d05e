"""Images with eStargz layers, judged by skopeo, umoci and a foreign registry (FEATURES B-14)."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import build, busybox_context, config_of, make_base, run_pipe, write_files
from tests.support.registry import docker_registry

pytestmark = [pytest.mark.linux, pytest.mark.peer]
_TOC = "containerd.io/snapshot/stargz/toc.digest"
_SIZE = "io.containers.estargz.uncompressed-size"


@pytest.fixture(scope="module")
def made(host: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store and a context: one layer of a base, two of our own."""
    directory = tmp_path_factory.mktemp("estargz")
    root = directory / "store"
    make_base(root, directory / "base")
    dockerfile = 'FROM base:1\nCOPY data /data\nRUN ["/bin/busybox", "rm", "/data/gone"]\n'
    files = {"Dockerfile": dockerfile, "data/gone": "1", "data/kept": "2", "data/empty": ""}
    return root, busybox_context(directory / "c", files)


def layout_of(root: Path, context: Path, directory: Path, fields: str) -> Path:
    build(root, context, "-t", "out:1", "-o", f"type=oci,tar=false,dest={directory}{fields}")
    return directory


def parts_of(layout: Path) -> tuple[dict[str, Any], dict[str, Any], list[bytes]]:
    """Manifest, config and the bytes of the layers."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]

    def blob(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    manifest = json.loads(blob(entry["digest"]))
    config = json.loads(blob(manifest["config"]["digest"]))
    return manifest, config, [blob(layer["digest"]) for layer in manifest["layers"]]


def unpacked(layout: Path, directory: Path) -> dict[str, str]:
    """What umoci makes of it: the digests of files."""
    command = ["umoci", "unpack", "--image", f"{layout}:1", str(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    rootfs = directory / "rootfs"
    return {
        str(path.relative_to(rootfs)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in rootfs.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_layers_are_named_by_what_is_in_them_and_their_tables(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, context = made
    manifest, config, layers = parts_of(
        layout_of(root, context, tmp_path / "out", ",compression=estargz,force-compression=true")
    )
    assert len(layers) == 5
    plain = [gzip.decompress(layer) for layer in layers]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in plain]
    for described, tar in zip(manifest["layers"], plain, strict=True):
        assert described["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        assert described["annotations"][_SIZE] == str(len(tar))
        start = tar.index(b'{"version":1')
        table = tar[start : tar.index(b"\0", start)]
        assert described["annotations"][_TOC] == "sha256:" + hashlib.sha256(table).hexdigest()


def test_umoci_unpacks_the_same_files_as_from_gzip(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    found = [
        unpacked(layout_of(root, context, tmp_path / kind, f",compression={kind}"), tmp_path / f"{kind}.d")
        for kind in ("gzip", "estargz")
    ]
    assert found[0] == found[1]
    assert "data/kept" in found[0]
    assert "data/gone" not in found[0]


def test_the_same_image_has_the_same_bytes_and_the_stored_one_stays_as_it_was(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, context = made
    image = build(root, context, "-t", "out:1")
    before = parts_of(layout_of(root, context, tmp_path / "before", ""))
    found = [
        parts_of(layout_of(root, context, tmp_path / f"out{n}", ",compression=estargz")) for n in range(2)
    ]
    assert found[0] == found[1]
    assert found[0][1]["history"] == config_of(root, image)["history"]
    assert build(root, context, "-t", "out:1") == image
    assert parts_of(layout_of(root, context, tmp_path / "after", "")) == before


def test_a_pushed_one_is_pulled_by_skopeo_and_built_upon_here(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, context = made
    with docker_registry(tmp_path) as registry:
        name = f"{registry.host}/lazy:1"
        build(
            root,
            context,
            "-o",
            f"type=registry,name={name},compression=estargz",
            "--metadata-file",
            str(tmp_path / "meta.json"),
        )
        copy = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path / 'copy'}:1"]
        policy = tmp_path / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        copy[1:1] = ["--policy", str(policy)]
        subprocess.run(copy, check=True, capture_output=True, timeout=120)
        manifest, _, _ = parts_of(tmp_path / "copy")
        assert (
            json.loads((tmp_path / "meta.json").read_text())["containerimage.config.digest"]
            == manifest["config"]["digest"]
        )
        run_pipe(tmp_path / "other", "pull", name)
        upon = write_files(tmp_path / "upon", {"Dockerfile": f"FROM {name}\nCOPY more /more\n", "more": "3"})
        again, _, _ = parts_of(layout_of(tmp_path / "other", upon, tmp_path / "out", ",compression=estargz"))
        for below, above in zip(manifest["layers"], again["layers"], strict=False):
            assert above["digest"] == below["digest"]
            assert above["annotations"][_TOC] == below["annotations"][_TOC]
        # A push of the image in the store is what it always was: by gzip, and under its own id.
        run_pipe(root, "tag", "out:1", f"{registry.host}/plain:1")
        run_pipe(root, "push", f"{registry.host}/plain:1")
        raw = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/plain:1"]
        pushed = json.loads(subprocess.run(raw, check=True, capture_output=True, timeout=60).stdout)
        assert pushed["config"]["digest"] == build(root, context)


def test_only_ocis_types_can_say_it_and_levels_are_gzips(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    manifest, _, small = parts_of(
        layout_of(
            root, context, tmp_path / "a", ",compression=estargz,compression-level=9,oci-mediatypes=false"
        )
    )
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    _, _, large = parts_of(
        layout_of(root, context, tmp_path / "b", ",compression=estargz,compression-level=0")
    )
    assert sum(map(len, small)) < sum(map(len, large))
    failed = run_pipe(
        root, "build", "-o", "type=oci,dest=-,compression=estargz,compression-level=10", str(context), code=2
    )
    assert b"want 0 to 9" in failed.stderr
