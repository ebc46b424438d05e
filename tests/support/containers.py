"""A store with a busybox image, and containers in it; what tests leave running is removed with the store."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_client.oci.config import ContainerConfig
from runtime.containers.client import Connection
from runtime.containers.container import Container
from runtime.containers.containers import Containers
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus
from runtime.events import Event
from runtime.images.images import Images
from runtime.networks.networks import Networks
from runtime.sandbox.spawner import Spawner
from runtime.store.store import Store
from runtime.volumes import Volumes
from tests.support.sandbox import busybox_rootfs

PATIENCE = 60.0  # seconds; nothing takes nearly so long, except on a machine that is busy with something else


def image_tar(directory: Path) -> bytes:
    """The tar of a root file system: busybox, and directories whose owners and modes tests look at."""
    root = busybox_rootfs(directory)
    (root / "data").mkdir()
    (root / "data" / "file").write_text("from the image\n")
    os.link(root / "data" / "file", root / "data" / "twin")
    os.chown(root / "data", 70, 71)
    (root / "data").chmod(0o750)
    (root / "away").symlink_to("/etc")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, ".")
    return buffer.getvalue()


class World:
    """One store and all its services."""

    def __init__(self, root: Path, spawner: Spawner, image: bytes) -> None:
        self.root = root
        self.store = Store.open(str(root))
        self.events: list[Event] = []
        self.images = Images(self.store)
        self.networks = Networks(self.store)
        self.volumes = Volumes(self.store)
        self.spawner = spawner
        self.containers = Containers(
            self.store, self.images, self.networks, self.volumes, spawner, self.events.append
        )
        self.images.tag(self.images.import_root(io.BytesIO(image)).id, "busybox:latest")

    def image(self, name: str, config: ContainerConfig, tar: bytes) -> None:
        """A further image of the same files with another configuration."""
        self.images.tag(self.images.import_root(io.BytesIO(tar), config=config).id, name)

    def create(self, *command: str, **fields: object) -> Container:
        fields = {"image": "busybox", "network_mode": "none"} | fields
        return self.containers.create(ContainerSpec(command=command or None, **fields))  # type: ignore[arg-type]

    def up(self, *command: str, **fields: object) -> Container:
        """A container that runs."""
        container = self.create(*command, **fields)
        self.containers.start(container.id)
        return self.containers.get(container.id)

    def run(self, *command: str, stdin: bytes | None = None, **fields: object) -> Ran:
        """Run to the end and remove; what it wrote and how it ended."""
        container = self.create(*command, stdin=stdin is not None, **fields)
        streams = ("stdin", "stdout", "stderr") if stdin is not None else ("stdout", "stderr")
        connection = self.containers.start(container.id, attach=streams)
        assert connection is not None
        ran = pump(connection, stdin)
        self.containers.finish(container.id, connection)
        if self.containers.find(container.id) is not None:
            self.containers.remove(container.id, volumes=True)
        return ran

    def exec(self, name: str, *argv: str, stdin: bytes | None = None, **fields: object) -> Ran:
        spec = ExecSpec(argv=argv, stdin=stdin is not None, **fields)  # type: ignore[arg-type]
        with self.containers.exec(name, spec) as connection:
            return pump(connection, stdin)

    def ended(self, name: str) -> ExitStatus:
        status = self.containers.wait(name, PATIENCE)
        assert status is not None, "it did not end in time"
        return status

    def log(self, name: str) -> str:
        return b"".join(line.data for line in self.containers.logs(name)).decode()

    def close(self) -> None:
        for container in self.containers.list(everything=True):
            self.containers.remove(container.id, force=True, volumes=True)
        self.networks.teardown()
        self.store.close()


class Ran:
    """What came out of a process."""

    def __init__(self, status: ExitStatus | None, stdout: bytes, stderr: bytes) -> None:
        assert status is not None, "the shim went away"
        self.status, self.stdout, self.stderr = status, stdout, stderr

    @property
    def code(self) -> int:
        return self.status.code

    @property
    def text(self) -> str:
        assert self.code == 0, f"exit {self.code}: {self.status.error} {self.stderr!r}"
        return self.stdout.decode()


def pump(connection: Connection, stdin: bytes | None = None) -> Ran:
    """Give it `stdin` (None: leave it alone) and take all it writes, until it ends."""
    written = {1: bytearray(), 2: bytearray()}
    with source(stdin) as descriptor:
        status = connection.pump(lambda kind, data: written[kind].extend(data), descriptor)
    return Ran(status, bytes(written[1]), bytes(written[2]))


@contextmanager
def source(data: bytes | None) -> Iterator[int]:
    """A descriptor that gives `data` and ends; -1 for None."""
    if data is None:
        yield -1
        return
    descriptor = os.memfd_create("stdin")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        # poll(2) says a regular file is always ready, which is what is wanted here.
        yield descriptor
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int) -> None:
    """Until a process has ended."""
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} is still there"
    finally:
        os.close(descriptor)
