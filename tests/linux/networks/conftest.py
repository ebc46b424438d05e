from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.networks import Networks
from runtime.store.store import Store
from tests.support.networks import World, own_host


@pytest.fixture
def world() -> Iterator[World]:
    with own_host():
        world = World()
        try:
            yield world
        finally:
            world.close()


@pytest.fixture
def networks(world: World, tmp_path: Path) -> Iterator[Networks]:
    with Store.open(str(tmp_path / "store")) as store:
        networks = Networks(store)
        yield networks
        networks.close()
