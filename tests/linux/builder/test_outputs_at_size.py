"""Outputs of large images: memory stays where it is, and foreign tools read them to the end (FEATURES B-13)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contexts import make_context, one_file, tree
from tests.support.builder import PROJECT, build, write_files

pytestmark = pytest.mark.linux
OUTPUTS = ("local", "tar", "docker", "oci", "oci,compression=zstd", "oci,tar=false,force-compression=true")
LIMIT = 100  # MiB
MIB = 1 << 20
# A process between us and `pipe`: what we hold ourselves would count as held by it before it executes.
_WATCH = (
    "import resource, subprocess, sys\n"
    "code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    "sys.exit(code)\n"
)


def peak_of(root: Path, *arguments: str) -> float:
    """MiB of the largest process of a `pipe` command that succeeds."""
    command = [sys.executable, "-m", "pipeline.cli.main", "--root", str(root), "--progress", "quiet"]
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, *command, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 1024


def check_output(root: Path, image: str, directory: Path, output: str) -> None:
    """Write an output of an image that is there, so that only the output costs, and have a foreign tool read it."""
    context = write_files(directory / "context", {"Dockerfile": f"FROM {image}\n"})
    out = directory / "out"
    assert peak_of(root, "build", "-o", f"type={output},dest={out}", str(context)) < LIMIT
    if output == "tar":
        subprocess.run(["tar", "-tf", out], check=True, stdout=subprocess.DEVNULL)
    elif output != "local":
        kind = "docker-archive" if output == "docker" else "oci" if "tar=false" in output else "oci-archive"
        _copy(f"{kind}:{out}", directory)


def _copy(source: str, directory: Path) -> None:
    """skopeo checks every digest."""
    policy = write_files(
        directory, {"policy.json": json.dumps({"default": [{"type": "insecureAcceptAnything"}]})}
    )
    command = ["skopeo", "--policy", str(policy / "policy.json"), "copy", source, f"dir:{directory / 'dir'}"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.peer
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_several_large_layers_are_compressed_in_little_memory(
    host: None, tmp_path: Path, compression: str
) -> None:
    names = [f"f{number}" for number in range(5)]
    files = {name: os.urandom(24 * MIB) for name in names}
    copies = "".join(f"COPY {name} /\n" for name in names)
    write_files(tmp_path / "c", {"Dockerfile": f"FROM scratch\n{copies}", **files})
    build(tmp_path / "store", tmp_path / "c", "-t", "large:1")
    check_output(tmp_path / "store", "large:1", tmp_path, f"oci,compression={compression}")


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("of", ["100,000 files", "1 GiB"])
def test_no_output_takes_more_memory_for_a_large_image(host: None, tmp_path: Path, of: str) -> None:
    maker = tree(100_000) if of == "100,000 files" else one_file(1024 * MIB)
    context = make_context(tmp_path / "c", maker)
    copied = (context / "Dockerfile").read_text().replace("localhost/bench/base:1", "scratch")
    (context / "Dockerfile").write_text(copied)
    build(tmp_path / "store", context, "-t", "large:1")
    for number, output in enumerate(OUTPUTS):
        place = tmp_path / str(number)
        check_output(tmp_path / "store", "large:1", place, output)
        subprocess.run(["rm", "-rf", place], check=True)
