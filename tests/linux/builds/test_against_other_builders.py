"""The cases built by builders that are here: Debian's buildah, and docker where `PIPE_DOCKER` says how to call it.

Minutes, so `make test-slow`. Cases with packages fetch them from the network, with the machine's certificates as a secret; they also
compare with buildah file by file, the whole root. What two runs of one builder write differently is named by a case in `ignore:`.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds.archive import Built
from tests.support.builds.bases import make_debian_base
from tests.support.builds.builders import Buildah, Builder, Pipe, docker_from_environment
from tests.support.builds.case import Case, load_cases
from tests.support.builds.compare import differences, page
from tests.support.builds.record import CASES

pytestmark = [pytest.mark.linux, pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(3600)]
ALL = load_cases(CASES)
# Mount points of buildah's that stay in its layers; ours are not in ours.
STUBS = (
    "dev",
    "proc",
    "sys",
    "run",
    "etc/hosts",
    "etc/resolv.conf",
    "etc/hostname",
    "run/.containerenv",
    "run/secrets",
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture(scope="module")
def buildah(base: Path, work: Path) -> Iterator[Buildah]:
    directory = Path(tempfile.mkdtemp(prefix="pb-"))
    try:
        builder = Buildah(directory, work)
        builder.load(base)
        yield builder
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def debian(pipe: Pipe, work: Path) -> Path:
    kept = os.environ.get("PIPE_DEBIAN_ROOT")  # a tar, to save making it
    return make_debian_base(pipe.root, work, Path(kept) if kept else None)


@pytest.mark.parametrize(
    "case", [c for c in ALL if c.base == "busybox" and c.suits("buildah")], ids=lambda c: c.name
)
def test_buildah_makes_the_same_files_and_config(
    pipe: Pipe, buildah: Buildah, case: Case, tmp_path: Path
) -> None:
    ours, theirs = both(pipe, buildah, case, tmp_path)
    assert files_that_differ(ours, theirs, case) == []
    assert started_by(ours) == started_by(theirs)


@pytest.mark.network
@pytest.mark.parametrize("case", [c for c in ALL if c.base == "debian"], ids=lambda c: c.name)
def test_packages_are_installed_as_buildah_installs_them(
    pipe: Pipe, buildah: Buildah, debian: Path, case: Case, tmp_path: Path
) -> None:
    buildah.load(debian)
    ours, theirs = both(pipe, buildah, case, tmp_path)
    assert files_that_differ(ours, theirs, case) == []
    assert started_by(ours) == started_by(theirs)


@pytest.mark.skipif("PIPE_DOCKER" not in os.environ, reason="PIPE_DOCKER does not say how to call docker")
@pytest.mark.parametrize("case", [c for c in ALL if c.suits("docker")], ids=lambda c: c.name)
def test_docker_makes_the_same_files_config_and_history(
    pipe: Pipe, base: Path, case: Case, request: pytest.FixtureRequest
) -> None:
    with tempfile.TemporaryDirectory(prefix="docker-", dir=os.environ.get("PIPE_DOCKER_WORK")) as directory:
        docker = docker_from_environment(Path(directory))
        assert docker is not None
        archive = request.getfixturevalue("debian") if case.base == "debian" else base
        docker.load(Path(shutil.copy(archive, directory)))
        ours, theirs = both(pipe, docker, case, Path(directory))
        if case.base == "debian":
            assert files_that_differ(ours, theirs, case) == []
        else:
            assert differences(ours, page(theirs), case) == []


def both(pipe: Pipe, other: Builder, case: Case, directory: Path) -> tuple[Built, Built]:
    context = case.write(directory / "context")
    certificates = directory / "ca.pem"
    certificates.write_bytes(CERTIFICATES.read_bytes() if CERTIFICATES.exists() else b"")
    built = []
    for builder in (pipe, other):
        outcome = builder.build(context, case.arguments(context, str(certificates)))
        assert outcome.image, f"{builder.name}:\n{outcome.log[-4000:]}"
        built.append(outcome.image)
    return built[0], built[1]


def files_that_differ(ours: Built, theirs: Built, case: Case) -> list[str]:
    """Whole roots, whichever layer a file is in; times only where the other's is not of its own build."""
    left, right = ours.lines(), theirs.lines()
    ignored = (
        *STUBS,
        *case.settings.get("ignore", "").split(),
        *case.settings.get("differs", "").partition(";")[0].split(),
    )
    return [
        f"{path!r}: {left.get(path)} | {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if not any(fnmatch.fnmatch(path, pattern) for pattern in ignored)
        and timeless(left.get(path)) != timeless(right.get(path))
    ]


def timeless(line: str | None) -> list[str] | None:
    """Without the time of a directory: buildah keeps that of a directory it writes to, or not, by its storage driver."""
    words = line.split() if line else None
    return [*words[:3], *words[4:]] if words and words[0] == "dir" else words


def started_by(built: Built) -> dict[str, Any]:
    """What a container is started by; buildah writes ENV in another order, and a label and a host name of its own."""
    config = {name: value for name, value in built.config["config"].items() if value}
    for name in ("ArgsEscaped", "Hostname", "Image", "OnBuild"):
        config.pop(name, None)
    config["Env"] = sorted(config.get("Env", ()))
    config["Labels"] = {k: v for k, v in config.get("Labels", {}).items() if k != "io.buildah.version"}
    if config.get("WorkingDir") == "/":
        del config["WorkingDir"]
    return config
