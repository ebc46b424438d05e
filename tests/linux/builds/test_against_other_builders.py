"""The cases built by builders that are here: Debian's buildah, and docker where `PIPE_DOCKER` says how to call it.

Minutes, so `make test-slow`. Cases with packages from the network are in tests/linux/packages.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds.builders import Buildah, Pipe, docker_from_environment
from tests.support.builds.case import Case, load_cases
from tests.support.builds.compare import differences, page
from tests.support.builds.record import CASES
from tests.support.builds.roots import both, files_that_differ, started_by

pytestmark = [pytest.mark.linux, pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(3600)]
ALL = load_cases(CASES)


@pytest.fixture(scope="module")
def buildah(base: Path, work: Path) -> Iterator[Buildah]:
    directory = Path(tempfile.mkdtemp(prefix="pb-"))
    try:
        builder = Buildah(directory, work)
        builder.load(base)
        yield builder
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize(
    "case", [c for c in ALL if c.base == "busybox" and c.suits("buildah")], ids=lambda c: c.name
)
def test_buildah_makes_the_same_files_and_config(
    pipe: Pipe, buildah: Buildah, case: Case, tmp_path: Path
) -> None:
    ours, theirs = both(pipe, buildah, case, tmp_path)
    assert files_that_differ(ours, theirs, case) == []
    assert started_by(ours) == started_by(theirs)


@pytest.mark.skipif("PIPE_DOCKER" not in os.environ, reason="PIPE_DOCKER does not say how to call docker")
@pytest.mark.parametrize(
    "case", [c for c in ALL if c.base == "busybox" and c.suits("docker")], ids=lambda c: c.name
)
def test_docker_makes_the_same_files_config_and_history(pipe: Pipe, base: Path, case: Case) -> None:
    with tempfile.TemporaryDirectory(prefix="docker-", dir=os.environ.get("PIPE_DOCKER_WORK")) as directory:
        docker = docker_from_environment(Path(directory))
        assert docker is not None
        docker.load(Path(shutil.copy(base, directory)))
        ours, theirs = both(pipe, docker, case, Path(directory))
        assert differences(ours, page(theirs), case) == []
