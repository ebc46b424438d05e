"""A spawner and a busybox root per test module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.sandbox import defaults, seccomp
from runtime.sandbox.spawner import Spawner
from tests.support.sandbox import Bench


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    with Spawner.start() as spawner:
        yield spawner


@pytest.fixture(scope="module")
def box(spawner: Spawner, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("box"), spawner)


@pytest.fixture(scope="session")
def seccomp_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Docker's default profile for the default capabilities, compiled."""
    return seccomp.program(str(tmp_path_factory.mktemp("seccomp")), defaults.CAPABILITIES)
