"""Packages from the network: apt with cache mounts, pip, npm, a C compiler, built by us and by Debian's buildah, whole roots compared.

The machine's certificates are a secret of the build. What two runs of one builder write differently is named by a case in `ignore:`.
`PIPE_DEBIAN_ROOT`, the tar of a minimal Debian, saves making one. No network namespace of its own: it has to reach the package mirrors.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds.bases import make_debian_base
from tests.support.builds.builders import Buildah, Pipe, driver_for
from tests.support.builds.case import Case, load_cases
from tests.support.builds.record import CASES
from tests.support.builds.roots import both, files_that_differ, started_by

pytestmark = [
    pytest.mark.linux,
    pytest.mark.peer,
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipe:
    work = tmp_path_factory.mktemp("packages")
    return Pipe(work / "store", work)


@pytest.fixture(scope="module")
def buildah(pipe: Pipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    kept, work = os.environ.get("PIPE_DEBIAN_ROOT"), tmp_path_factory.mktemp("debian")
    directory = Path(tempfile.mkdtemp(prefix="pb-"))
    try:
        builder = Buildah(directory, work, driver=driver_for(directory))
        builder.load(make_debian_base(pipe.root, work, Path(kept) if kept else None))
        yield builder
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("case", [c for c in load_cases(CASES) if c.base == "debian"], ids=lambda c: c.name)
def test_packages_are_installed_as_buildah_installs_them(
    pipe: Pipe, buildah: Buildah, case: Case, tmp_path: Path
) -> None:
    ours, theirs = both(pipe, buildah, case, tmp_path)
    assert files_that_differ(ours, theirs, case) == []
    assert started_by(ours) == started_by(theirs)
