"""Outputs, judged by skopeo, GNU tar and podman (FEATURES B-13, B-20)."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.support.builder import PROJECT, build, busybox_context, config_of, run_pipe, write_files
from tests.support.places import in_memory

pytestmark = pytest.mark.linux
DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY data /data
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox rm /data/gone && /bin/busybox chown 5:6 /data/kept"]
ENV A=b
LABEL l="v"
CMD ["/bin/busybox", "echo", "hello from the image"]
"""


@pytest.fixture(scope="module")
def made(host: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store and a context that was built once."""
    directory = tmp_path_factory.mktemp("outputs")
    files = {"Dockerfile": DOCKERFILE, "data/gone": "1", "data/kept": "2", "data/über": "3"}
    context = busybox_context(directory / "c", files)
    build(directory / "store", context, "-t", "out:1")
    return directory / "store", context


def skopeo(*arguments: str) -> str:
    return subprocess.run(
        ["skopeo", *arguments], check=True, capture_output=True, timeout=120
    ).stdout.decode()


@pytest.mark.peer
def test_an_oci_archive_is_what_skopeo_expects(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    image = build(root, context, "-o", f"type=oci,dest={tmp_path / 'out.tar'}", "-t", "out:1")
    assert json.loads(skopeo("inspect", "--config", f"oci-archive:{tmp_path / 'out.tar'}")) == config_of(
        root, image
    )
    # Copying checks every digest.
    skopeo(
        "--policy",
        _policy(tmp_path),
        "copy",
        f"oci-archive:{tmp_path / 'out.tar'}",
        f"dir:{tmp_path / 'dir'}",
    )


def _policy(directory: Path) -> str:
    path = directory / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return str(path)


@pytest.mark.peer
@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_an_oci_directory_in_every_compression(
    made: tuple[Path, Path], tmp_path: Path, compression: str
) -> None:
    root, context = made
    out = f"type=oci,tar=false,dest={tmp_path / 'out'},compression={compression}"
    build(root, context, "-o", out, "-t", "out:1")
    found = json.loads(skopeo("inspect", "--raw", f"oci:{tmp_path / 'out'}"))
    endings = {"gzip": "+gzip", "zstd": "+zstd", "uncompressed": ".tar"}
    assert all(layer["mediaType"].endswith(endings[compression]) for layer in found["layers"])
    skopeo("--policy", _policy(tmp_path), "copy", f"oci:{tmp_path / 'out'}", f"dir:{tmp_path / 'dir'}")


@pytest.mark.peer
def test_a_docker_archive_is_loaded_by_podman(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    archive = tmp_path / "out.tar"
    build(root, context, "-o", f"type=docker,dest={archive}", "-t", "example/out:1")
    with tarfile.open(archive) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert manifest[0]["RepoTags"] == ["example/out:1"]
    # Podman refuses a run root whose path is longer than 50 characters.
    place = tempfile.mkdtemp(prefix="pipe-podman-")
    podman = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
    try:
        subprocess.run([*podman, "load", "-i", str(archive)], check=True, capture_output=True, timeout=240)
        made_id = (
            subprocess.run([*podman, "create", "example/out:1"], check=True, capture_output=True, timeout=240)
            .stdout.decode()
            .strip()
        )
        root_tar = subprocess.run(
            [*podman, "export", made_id], check=True, capture_output=True, timeout=240
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(root_tar)) as tar:
            found = {member.name: member for member in tar}
        assert (found["data/kept"].uid, found["data/kept"].gid) == (5, 6)
        assert "data/gone" not in found
    finally:
        subprocess.run([*podman, "system", "reset", "-f"], capture_output=True, timeout=240)
        shutil.rmtree(place, ignore_errors=True)


def test_a_tar_is_read_by_gnu_tar_and_a_directory_has_the_files(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, context = made
    build(root, context, "-o", f"type=tar,dest={tmp_path / 'out.tar'}", "-o", str(tmp_path / "out"))
    listed = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", str(tmp_path / "out.tar")],
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout.decode()
    assert "5/6" in listed
    assert "data/gone" not in listed
    assert (tmp_path / "out/data/kept").read_text() == "2"
    assert sorted(os.listdir(tmp_path / "out/data")) == ["kept", "über"]


def test_standard_output_carries_the_archive_alone(made: tuple[Path, Path]) -> None:
    root, context = made
    done = run_pipe(root, "build", "-o", "type=oci,dest=-", str(context))
    listed = subprocess.run(["tar", "-t"], input=done.stdout, check=True, capture_output=True, timeout=60)
    assert b"oci-layout" in listed.stdout


def test_an_archive_has_the_same_bytes_every_time(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    archives = [run_pipe(root, "build", "-o", "type=oci,dest=-", str(context)).stdout for _ in range(2)]
    assert archives[0] == archives[1]


def test_the_id_and_the_metadata_are_written_to_files(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    files = ("--iidfile", str(tmp_path / "iid"), "--metadata-file", str(tmp_path / "meta.json"))
    image = build(root, context, *files, "-t", "out:2")
    assert (tmp_path / "iid").read_text() == image
    metadata = json.loads((tmp_path / "meta.json").read_text())
    assert metadata["containerimage.config.digest"] == image
    assert metadata["image.name"] == "docker.io/library/out:2"


def test_one_platform_can_be_treated_as_several(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    asked = ("--build-arg", "BUILDKIT_MULTI_PLATFORM=1")
    layout = tmp_path / "layout"
    build(
        root,
        context,
        *asked,
        "-o",
        f"type=local,dest={tmp_path / 'out'}",
        "-o",
        f"type=oci,tar=false,dest={layout}",
    )
    (platform,) = os.listdir(tmp_path / "out")
    assert platform.startswith("linux_")
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.index.v1+json"


def test_an_image_can_be_known_by_its_digest_too(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    meta = str(tmp_path / "meta.json")
    for output in ("name=reg.example.org/a:1,name-canonical=true", "dangling-name-prefix=reg.example.org/a"):
        build(root, context, "-o", f"type=image,{output}", "--metadata-file", meta)
        digest = json.loads((tmp_path / "meta.json").read_text())["containerimage.digest"]
        known = json.loads(run_pipe(root, "inspect", f"reg.example.org/a@{digest}").stdout)[0]
        assert f"reg.example.org/a@{digest}" in known["RepoDigests"]


def test_a_directory_can_be_made_to_hold_nothing_else(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    write_files(tmp_path, {"out/old/file": "1", "out/data/old": "2", "safe/file": "3"})
    (tmp_path / "out" / "link").symlink_to(tmp_path / "safe")
    build(root, context, "-o", f"type=local,dest={tmp_path / 'out'}")
    assert (tmp_path / "out" / "old" / "file").exists()
    build(root, context, "-o", f"type=local,mode=delete,dest={tmp_path / 'out'}")
    assert sorted(os.listdir(tmp_path / "out")) == ["bin", "data"]
    assert sorted(os.listdir(tmp_path / "out" / "data")) == ["kept", "über"]
    assert (tmp_path / "safe" / "file").exists()
    for dest in (context, context.parent):
        failed = run_pipe(root, "build", "-o", f"type=local,mode=delete,dest={dest}", str(context), code=2)
        assert b"would remove" in failed.stderr
    assert (context / "Dockerfile").exists()


def test_flags_of_older_dockers_change_nothing_and_say_so_where_it_matters(made: tuple[Path, Path]) -> None:
    root, context = made
    old = (
        "--rm",
        "--force-rm=true",
        "--compress",
        "--builder",
        "default",
        "--squash",
        "--security-opt",
        "a=b",
    )
    plain = run_pipe(root, "build", "-q", str(context))
    done = run_pipe(root, "build", "-q", *old, str(context))
    assert done.stdout == plain.stdout
    assert [line.partition(" has")[0] for line in done.stderr.decode().splitlines()] == [
        "warning: --security-opt", "warning: --squash",
    ]  # fmt: skip
    assert b"--squash" not in run_pipe(root, "build", "--help").stdout


@pytest.mark.parametrize("kind", ["tar", "oci"])
def test_a_reader_who_has_enough_is_no_fault_and_a_full_disk_names_the_output(
    made: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    root, context = made
    command = [
        sys.executable,
        "-m",
        "pipeline.cli.main",
        "--root",
        str(root),
        "build",
        "-o",
        f"type={kind},dest=-",
        str(context),
    ]
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    os.close(writing)
    assert b"pipe:" not in gone.stderr, gone.stderr
    with open("/dev/full", "wb") as full:
        failed = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)}
        )
    assert b"cannot write to standard output: No space left on device" in failed.stderr


def test_a_full_disk_fails_a_save_as_a_fault_of_the_host_and_leaves_nothing(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, _ = made
    with in_memory(tmp_path / "small", "256k") as small:
        failed = run_pipe(root, "save", "-o", str(small / "out.tar"), "out:1", code=3)
        assert b"cannot write" in failed.stderr
        assert b"No space left on device" in failed.stderr
        assert os.listdir(small) == []


def test_a_failed_output_leaves_the_earlier_file(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, context = made
    (tmp_path / "file").write_text("earlier")
    done = run_pipe(root, "build", "-o", f"type=local,dest={tmp_path / 'file'}", str(context), code=2)
    assert b"is not a directory" in done.stderr
    assert (tmp_path / "file").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "type=ocii,dest=x"), b"did you mean `oci`"),
        (("-o", "type=local"), b"needs dest=DIRECTORY"),
        (("--push",), b"a push needs a name"),
        (("--build-arg", "=x"), b"has no name"),
        (("--secret", "src=x"), b"needs an id"),
        (("--platform", "a/b/c/d"), b"invalid platform"),
        (("--ulimit", "nofile"), b"is not NAME=SOFT"),
        (("--ulimit", "nofile=10:5"), b"above the hard one"),
        (("--add-host", "db"), b"is not NAME:ADDRESS"),
        (("--add-host", "db:999.1.1.1"), b"is not an IP address"),
        (("--secret", "type=file,id=a,src=nosuch"), b"cannot read nosuch"),
        (("--secret", "type=vault,id=a"), b"unknown type"),
        (("--progress", "fast"), b"rawjson"),
        (("-o", ""), b"--output is empty"),
        (("--target", "nosuch"), b"nosuch"),
        (("-f", "missing.Dockerfile"), b"no Dockerfile at missing.Dockerfile"),
        (("-t", "UPPER"), b"lower case"),
    ],
)
def test_a_mistake_in_a_flag_ends_with_code_2(
    made: tuple[Path, Path], arguments: tuple[str, ...], said: bytes
) -> None:
    root, context = made
    done = run_pipe(root, "build", *arguments, str(context), code=2)
    assert said in done.stderr


def test_a_context_that_is_none_is_said_plainly(fresh_root: Path, tmp_path: Path) -> None:
    for context, said in ((tmp_path / "none", b"does not exist"), (tmp_path / "empty", b"no Dockerfile in")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert said in run_pipe(fresh_root, "build", str(context), code=2).stderr
    write_files(tmp_path / "empty", {"Dockerfile": "FROM scratch\nCOPYY a b\n"})
    done = run_pipe(fresh_root, "build", str(tmp_path / "empty"), code=2)
    assert b":2:1" in done.stderr
    assert b"COPY" in done.stderr
