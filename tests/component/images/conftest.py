"""Unpacking a layer sets owners, which only root may."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.events import Event
from runtime.images import Images
from runtime.store import Store
from tests.support.store import FakeRegistry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def images(store: Store, registry: FakeRegistry, events: list[Event]) -> Images:
    return Images(store, registry, events.append)
