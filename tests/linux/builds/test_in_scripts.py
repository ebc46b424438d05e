"""What scripts written for `docker build` rely on, as docker 28 does it: where output goes, files that are written, flags of old."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builder import run_pipe, write_files
from tests.support.builds.builders import Pipe

pytestmark = pytest.mark.linux
DOCKERFILE = "FROM stand.in/base:1\nRUN echo out; echo err >&2; echo made > /f\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_files(
        tmp_path / "context", {"Dockerfile": DOCKERFILE, "broken": "FROM stand.in/base:1\nRUN exit 7\n"}
    )


def test_standard_output_is_empty_and_all_progress_goes_to_standard_error(pipe: Pipe, context: Path) -> None:
    done = run_pipe(pipe.root, "build", "--no-cache", str(context))
    assert done.stdout == b""
    assert b"out" in done.stderr
    assert b"err" in done.stderr


@pytest.mark.parametrize("flags", [["-q"], ["--quiet=true"], ["--progress=quiet"]], ids=" ".join)
def test_quiet_prints_the_id_on_a_line_of_its_own_and_nothing_else(
    pipe: Pipe, context: Path, flags: list[str]
) -> None:
    done = run_pipe(pipe.root, "build", *flags, "--iidfile", str(context / "iid"), str(context))
    image = (context / "iid").read_text()
    assert image.startswith("sha256:")
    assert len(image) == 71, "no line end, as docker writes it"
    assert (done.stdout.decode(), done.stderr) == (f"{image}\n", b"")


def test_the_metadata_file_has_buildxs_keys(pipe: Pipe, context: Path) -> None:
    meta, iid = context / "meta", context / "iid"
    arguments = (
        "-t",
        "stand.in/scripts:1",
        "--metadata-file",
        str(meta),
        "--iidfile",
        str(iid),
        str(context),
    )
    run_pipe(pipe.root, "build", "-q", *arguments)
    found = json.loads(meta.read_text())
    assert found["containerimage.config.digest"] == found["containerimage.digest"] == iid.read_text()
    assert found["image.name"] == "stand.in/scripts:1"


def test_a_failed_build_says_why_also_when_quiet_and_writes_no_file(pipe: Pipe, context: Path) -> None:
    files = ("--iidfile", str(context / "iid"), "--metadata-file", str(context / "meta"))
    done = run_pipe(pipe.root, "build", "-q", *files, "-f", str(context / "broken"), str(context), code=1)
    assert done.stdout == b""
    assert b"exit code 7" in done.stderr
    assert not (context / "iid").exists()
    assert not (context / "meta").exists()


def test_an_unused_build_argument_is_a_warning(pipe: Pipe, context: Path) -> None:
    done = run_pipe(pipe.root, "build", "--build-arg", "NOPE=1", str(context))
    assert b"NOPE was not consumed" in done.stderr


def test_switches_take_values_and_those_of_the_older_builder_mean_nothing(pipe: Pipe, context: Path) -> None:
    plain = run_pipe(pipe.root, "build", "-q", str(context)).stdout
    values = ("--pull=false", "--no-cache=false", "--push=0", "--load=true")
    old = ("--rm", "--force-rm=true", "--compress", "--disable-content-trust=false")
    assert run_pipe(pipe.root, "build", "-q", *values, *old, str(context)).stdout == plain
