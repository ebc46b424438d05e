"""One host of their own, and one store with the stand-in base of the cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds.bases import make_busybox_base
from tests.support.builds.builders import Pipe
from tests.support.networks import own_host


@pytest.fixture(scope="package", autouse=True)
def host() -> Iterator[None]:
    with own_host():
        yield


@pytest.fixture(scope="package")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builds")


@pytest.fixture(scope="package")
def base(host: None, work: Path) -> Path:
    """The archive with the base; it is in the store `work/store` as well."""
    return make_busybox_base(work / "store", work)


@pytest.fixture(scope="package")
def pipe(base: Path, work: Path) -> Pipe:
    return Pipe(work / "store", work)
