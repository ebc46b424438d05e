"""What every test shares: no test may depend on the caller's settings, and none leaves a mount behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

SETTINGS = (
    "PIPE_ROOT",
    "PIPE_SNAPSHOTS",
    "PIPE_PROGRESS",
    "PIPE_JOBS",
    "PIPE_DEBUG",
    "PIPE_RUNTIME",
    "DOCKER_CONFIG",
    "SOURCE_DATE_EPOCH",
)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def no_networks_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store's bridges and rules stay on the host by design; those of the tests' stores go."""
    yield
    if os.geteuid() == 0:
        from tests.support.networks import remove_networks_below

        remove_networks_below(tmp_path_factory.getbasetemp())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real containers need root; on another account they are told apart, not passed over in silence."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root")
    for item in items:
        if item.get_closest_marker("linux"):
            item.add_marker(skip)
