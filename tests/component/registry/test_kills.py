"""The embedded registry killed in the middle of pushes: the next one goes on, and nothing half is taken for whole."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry_client.client import RegistryClient
from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.patience import Patience
from registry_client.uploads import Pushed
from runtime.errors import HostFault
from runtime.images.images import Images
from runtime.registry import process
from runtime.registry.service import ServiceOptions
from runtime.store import Store
from tests.support.registry_images import opener, small_image

SIZE = 3 << 20
CHUNK = 200_000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "store")
    Store.open(path).close()
    yield path
    process.stop(path)


def kill(root: str) -> None:
    """SIGKILL, and wait until it is gone."""
    state = process.status(root)
    assert state is not None
    watch = os.pidfd_open(state.pid)
    try:
        os.kill(state.pid, signal.SIGKILL)
        os.waitid(os.P_PIDFD, watch, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass  # the thread that waits for it was quicker
    finally:
        os.close(watch)


def start_again(root: str, address: str) -> None:
    """Serve at the same address; a connection of somebody else may have the port for a moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            process.start_detached(root, ServiceOptions(address=address))
            return
        except HostFault as error:
            if "in use" not in error.message or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def killing(root: str, address: str, at: int) -> Callable[[int], None]:
    """A progress report that kills the registry when `at` bytes were sent, and starts it again at its address."""
    pending = [at]

    def report(sent: int) -> None:
        if pending and sent >= pending[0]:
            pending.clear()
            kill(root)
            start_again(root, address)

    return report


def push_with_kills(root: str, seeds: list[int]) -> None:
    address = process.start_detached(root, ServiceOptions(address="127.0.0.1:0")).address
    patience = Patience(10, first_pause=0.05, longest_pause=0.5)
    with RegistryClient(address, patience=patience) as client:
        for seed in seeds:
            chance = random.Random(seed)
            data = chance.randbytes(SIZE)
            blob = Descriptor(media_types.OCI_LAYER, digest_of(data), len(data))
            report = killing(root, address, chance.randrange(1, SIZE))
            chunk = chance.choice([None, CHUNK])
            done = client.push_blob("a/b", blob, opener(data), chunk=chunk, progress=report)
            assert done is Pushed.UPLOADED
            with client.blob("a/b", blob.digest, size=SIZE) as chunks:
                assert b"".join(chunks) == data
    with Store.open(root) as store:
        # What a killed session left may still be continued; when its time is over the collector takes it.
        for name in os.listdir(store.content.ingest):
            os.utime(os.path.join(store.content.ingest, name), (0, 0))
        store.collect()
        assert os.listdir(store.content.ingest) == []
        assert len(os.listdir(os.path.join(store.content.directory, "sha256"))) == len(seeds)


def test_a_push_survives_kills_of_the_registry(root: str) -> None:
    push_with_kills(root, [1, 2, 3])


@pytest.mark.slow
def test_a_push_survives_many_kills_of_the_registry(root: str) -> None:
    push_with_kills(root, list(range(100, 150)))


def test_a_tag_is_the_old_or_the_new_image_whenever_it_is_killed(root: str) -> None:
    address = process.start_detached(root, ServiceOptions(address="127.0.0.1:0")).address
    images = [small_image(f"{number}".encode()) for number in range(4)]
    with RegistryClient(address, patience=Patience(10, first_pause=0.05, longest_pause=0.5)) as client:
        for image in images:
            for descriptor, data in image.blobs:
                client.push_blob("shop/app", descriptor, opener(data))
            client.put_manifest("shop/app", "1", image.manifest.raw, image.manifest.media_type)
            kill(root)
            start_again(root, address)
            assert client.manifest("shop/app", "1")[2] == image.manifest.digest
    with Store.open(root) as store:
        assert Images(store).get("shop/app:1").manifest_digest == images[-1].manifest.digest
