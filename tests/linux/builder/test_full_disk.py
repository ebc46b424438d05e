"""A disk that gets full in the middle of a build, an export, a push: said clearly, the store unharmed, and all works with room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builder import make_base, run_pipe, write_files
from tests.support.places import in_memory
from tests.support.registry import docker_registry

pytestmark = pytest.mark.linux
KIB = 1 << 10
ROOMS = (0, 4, 16, 48, 96, 160, 256, 512, 1024, 2048, 3000, 3300, 4096, 5200)  # KiB
SIZE = 3_000_000


@dataclass
class Place:
    """A small disk with a store on it, whose base image is there; `context` lies elsewhere."""

    disk: Path
    context: Path

    @property
    def store(self) -> Path:
        return self.disk / "store"

    def build(
        self, dockerfile: str, *arguments: str, code: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        words = ("build", "-t", "made:1", *arguments, "-f", "-", str(self.context))
        return run_pipe(self.store, *words, stdin=dockerfile.encode(), code=code)

    def leave(self, room: int) -> None:
        """Fill the disk up to so many bytes."""
        with open(self.disk / "ballast", "wb", buffering=0) as file:
            while (over := self._free() - room) > 0:
                file.write(bytes(min(over, 1 << 20)))

    def _free(self) -> int:
        found = os.statvfs(self.disk)
        return found.f_bavail * found.f_frsize

    def make_room(self) -> None:
        (self.disk / "ballast").unlink()

    def halves(self) -> list[str]:
        return [str(each) for name in ("drafts", "mnt", "ingest") for each in (self.store / name).iterdir()]


@pytest.fixture(scope="module")
def seed(host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seed")
    make_base(directory / "store", directory / "base")
    context = write_files(directory / "context", {f"many/{n}": os.urandom(9000) for n in range(SIZE // 9000)})
    with tarfile.open(context / "many.tar", "w") as archive:
        archive.add(context / "many", "many")
    write_files(context, {"big": os.urandom(SIZE)})
    return directory


@pytest.fixture
def place(seed: Path, tmp_path: Path) -> Iterator[Place]:
    with in_memory(tmp_path / "disk", "40m") as disk:
        subprocess.run(["cp", "-a", seed / "store", disk / "store"], check=True)
        yield Place(disk, seed / "context")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


Work = Callable[[Place, str, int | None], subprocess.CompletedProcess[bytes]]


def step(dockerfile: str) -> Work:
    return lambda place, registry, code: place.build(f"FROM base:1\n{dockerfile}\n", code=code)


def output(kind: str) -> Work:
    def work(place: Place, registry: str, code: int | None) -> subprocess.CompletedProcess[bytes]:
        shutil.rmtree(place.disk / "out", ignore_errors=True)
        (place.disk / "out").mkdir(exist_ok=True)
        target = place.disk / "out" / "x"
        return place.build("FROM base:1\nCOPY big /\n", "-o", f"type={kind},dest={target}", code=code)

    return work


def share(place: Place, registry: str, code: int | None) -> subprocess.CompletedProcess[bytes]:
    arguments = ("--cache-to", f"type=local,dest={place.disk / 'cache'},mode=max")
    return place.build("FROM base:1\nCOPY big /\n", *arguments, code=code)


def push(place: Place, registry: str, code: int | None) -> subprocess.CompletedProcess[bytes]:
    name = f"{registry}/full/made:1"
    return place.build("FROM base:1\nCOPY big /\n", "-o", f"type=registry,name={name}", code=code)


WORKS = {
    "COPY of a file": step("COPY big /"),
    "COPY of files": step("COPY many /many/"),
    "ADD": step("ADD many.tar /"),
    "RUN": step("RUN --mount=type=bind,source=big,target=/b cp /b /big"),
    "RUN with a cache": step("RUN --mount=type=cache,target=/c head -c 2000000 /dev/urandom > /c/x && cp /c/x /y"),
    "WORKDIR": step("WORKDIR /a/b/c\nENV a=b\nWORKDIR d\nRUN echo 1 > 1"),
    "tar": output("tar"),
    "oci": output("oci"),
    "docker": output("docker"),
    "local": output("local"),
    "cache export": share,
    "push": push,
}  # fmt: skip
SOME = ("COPY of files", "RUN", "oci")


def check_a_full_disk(place: Place, registry: str, work: Work, room: int) -> bool:
    """Do the work with so much room; True when there was enough. Then make room, and do it again."""
    place.leave(room * KIB)
    done = work(place, registry, None)
    if done.returncode:
        assert done.returncode in (1, 3), done.stderr
        assert b"No space left" in done.stderr or b" is full" in done.stderr, done.stderr
        assert b"hint: " in done.stderr
    assert b"internal error" not in done.stderr
    assert b"Traceback" not in done.stderr
    run_pipe(place.store, "images", code=None)
    place.make_room()
    assert done.returncode == 0 or place.halves() == []
    work(place, registry, 0)
    assert place.halves() == []
    place.build("FROM made:1\n", "-o", "type=tar,dest=-")
    return done.returncode == 0


@pytest.mark.peer
@pytest.mark.parametrize("name", SOME)
def test_a_full_disk_is_said_and_all_works_with_room_again(place: Place, registry: str, name: str) -> None:
    assert not check_a_full_disk(place, registry, WORKS[name], 300)


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", WORKS)
def test_a_disk_may_get_full_at_any_moment(seed: Path, registry: str, tmp_path: Path, name: str) -> None:
    ended = []
    for room in ROOMS:
        with in_memory(tmp_path / str(room), "40m") as disk:
            subprocess.run(["cp", "-a", seed / "store", disk / "store"], check=True)
            ended.append(check_a_full_disk(Place(disk, seed / "context"), registry, WORKS[name], room))
    assert not ended[0]


@pytest.mark.parametrize("command", [("system", "prune", "-af"), ("cache", "prune", "-af")], ids=" ".join)
def test_a_prune_makes_room_on_a_disk_without_any(place: Place, command: tuple[str, ...]) -> None:
    place.build("FROM base:1\nCOPY big /\n")
    run_pipe(place.store, "cache", "prune", "-f")  # stores of before had no reserve
    run_pipe(place.store, "rmi", "made:1")
    place.leave(0)
    done = place.build("FROM scratch\nCOPY many /\n", code=3)
    assert b"free some space" in done.stderr
    run_pipe(place.store, *command)
    place.build("FROM scratch\nCOPY many/1 /\n")
    assert (place.store / "reserve").stat().st_size == 1 << 20
