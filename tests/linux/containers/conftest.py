"""One store with a busybox image for all tests of a module, and whatever they start gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.sandbox.spawner import Spawner
from tests.support.containers import World, image_tar


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return image_tar(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, busybox_tar: bytes) -> Iterator[World]:
    with Spawner.start() as spawner:
        world = World(tmp_path_factory.mktemp("world") / "store", spawner, busybox_tar)
        try:
            yield world
        finally:
            world.close()
