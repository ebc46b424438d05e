"""Kill -9 of two commands at once, at random moments of what else builds do: whatever was going on, the next one is as ever."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.store import Store
from tests.linux.builder.test_contexts import Server, tar_of
from tests.linux.builder.test_kills import EPOCH, Scene
from tests.support.builder import PROJECT, make_base, run_pipe, write_files
from tests.support.registry import docker_registry
from tests.support.registry_images import layered_image
from tests.support.watched_registry import WatchedRegistry, watched_registry

pytestmark = pytest.mark.linux
PATIENCE = 60.0


@dataclass
class Kind:
    """What is killed: a command, and how to have all its work before it again. `code` is what it ends with undisturbed."""

    arguments: tuple[str, ...]
    directory: Path
    fresh: Callable[[Path], None] = lambda root: None
    code: int = 0
    input: bytes = b""
    paths: tuple[Path, ...] = field(default=())  # what it writes: nothing beside these must be left there


def forget_all(root: Path) -> None:
    run_pipe(root, "system", "prune", "-af")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


@pytest.fixture(scope="module")
def bases(host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRegistry]:
    layers = [{f"l{number}/f{n}": os.urandom(3000) for n in range(60)} for number in range(6)]
    with watched_registry(tmp_path_factory.mktemp("bases")) as registry:
        registry.put("base", "1", layered_image(*layers))
        yield registry


FILES = {f"files/{n}": f"{n}\n" * 300 for n in range(150)}
STEPS = "FROM base:1\nRUN for i in 1 2 3 4 5 6; do echo $i > /$i; done\nCOPY files /files\nRUN rm -r /files/1* && echo x > /x\n"


def lazy_base(directory: Path, bases: WatchedRegistry, registry: str) -> Kind:
    text = f"FROM {bases.host}/base:1\nRUN cat /l3/f1 > /copy\nCOPY files /files\nRUN ls /files > /list\n"
    write_files(directory, {"Dockerfile": text, **FILES})
    return Kind(("build", "-t", "made:1", str(directory)), directory, forget_all)


def added(directory: Path, bases: WatchedRegistry, registry: str) -> Kind:
    server = Server()
    server.files["/a.tar.gz"] = tar_of({f"in/{n}": "text" * 200 for n in range(200)})
    work = write_files(directory / "work", FILES)
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(work))
    for words in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "one")):
        subprocess.run((*git, *words), check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    bare = directory / "bare.git"
    subprocess.run(("git", "clone", "-q", "--bare", str(work), str(bare)), check=True, capture_output=True)
    subprocess.run(("git", "-C", str(bare), "update-server-info"), check=True)
    for place in bare.rglob("*"):
        if place.is_file():
            server.files[f"/bare.git/{place.relative_to(bare)}"] = place.read_bytes()
    server.files["/bare.git/info/refs?service=git-upload-pack"] = server.files["/bare.git/info/refs"]
    text = f"FROM base:1\nADD {server.url}/bare.git /git\nADD --unpack=true {server.url}/a.tar.gz /tar\nRUN ls /git /tar > /list\n"
    write_files(directory / "context", {"Dockerfile": text})
    kind = Kind(("build", "-t", "made:1", "--no-cache", str(directory / "context")), directory)
    kind.server = server  # type: ignore[attr-defined]
    return kind


def cache_export(directory: Path, bases: WatchedRegistry, registry: str) -> Kind:
    write_files(directory / "context", {"Dockerfile": STEPS, **FILES})
    name = f"{registry}/cache/{directory.name.lower()}:1"
    targets = (f"type=local,dest={directory / 'cache'},mode=max", f"type=registry,ref={name},mode=max")
    flags = [word for target in targets for word in ("--cache-to", target)]
    words = ("build", "-t", "made:1", "--no-cache", *flags, str(directory / "context"))
    return Kind(words, directory, paths=(directory / "cache",))


def bake(directory: Path, bases: WatchedRegistry, registry: str) -> Kind:
    targets = {
        name: {
            "dockerfile-inline": STEPS + f"RUN echo {name} > /name\n",
            "tags": [f"{name}:1"],
            "no-cache": True,
        }
        for name in ("one", "two", "three")
    }
    file = {"group": {"default": {"targets": list(targets)}}, "target": targets}
    write_files(directory, {"docker-bake.json": json.dumps(file), **FILES})
    return Kind(("bake",), directory)


def verified(directory: Path, bases: WatchedRegistry, registry: str) -> Kind:
    write_files(directory, {"Dockerfile": STEPS, **FILES})
    flags = ("--verify-reproducible", "-o", "type=image,rewrite-timestamp=true")
    return Kind(("build", "-t", "made:1", *flags, str(directory)), directory)


def failing(directory: Path, bases: WatchedRegistry, registry: str) -> Kind:
    write_files(directory, {"Dockerfile": STEPS + "RUN touch /begun && exit 7\n", **FILES})
    return Kind(
        ("build", "--no-cache", "--on-failure=shell", str(directory)), directory, code=1, input=b"ls /\n"
    )


KINDS = [lazy_base, added, cache_export, bake, verified, failing]


class Killing:
    """Two processes of a kind at a time in one store, and what is looked at afterwards."""

    def __init__(self, directory: Path, kind: Kind) -> None:
        self.kind, self.temporary = kind, directory / "temporary"
        self.temporary.mkdir()
        self.scene = Scene.__new__(Scene)
        self.scene.directory, self.scene.root = directory, directory / "store"
        self.scene.cgroup = f"pipe-kill-{os.getpid()}-{random.randrange(1 << 30):x}"
        make_base(self.scene.root, directory / "base")

    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], "HOME": str(self.scene.directory),
            "TMPDIR": str(self.temporary), **EPOCH,
        }  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        words = [
            sys.executable,
            "-m",
            "pipeline.cli.main",
            "--root",
            str(self.scene.root),
            "--progress",
            "plain",
        ]
        process = subprocess.Popen(
            [*words, *self.kind.arguments], cwd=self.kind.directory, env=self.environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        return process

    def undisturbed(self) -> float:
        """It must work; how long it takes."""
        begin = time.monotonic()
        process = self.start()
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == self.kind.code, said.decode(errors="replace")
        return time.monotonic() - begin

    def interfaces_and_rules(self) -> tuple[str, str]:
        links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
        names = sorted(line.split(":")[1].strip() for line in links.splitlines())
        rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        return ", ".join(names), "\n".join(line for line in rules.splitlines() if "packets" not in line)

    def left(self) -> list[str]:
        if self.kind.code:
            with Store.open(str(self.scene.root)) as store:
                store.collect()  # what a failed step left is kept until then, for `pipe shell --last-failed`
        found = self.scene.leftovers()
        found += [f"temporary {name}" for name in os.listdir(self.temporary)]
        found += [f"partial {name}" for name in os.listdir(self.scene.root / "ingest")]
        for path in self.kind.paths:
            odd = [each for each in path.rglob("*") if each.is_file() and each.name.startswith(".")]
            found += [str(each) for each in odd]
        return found

    def run(self, times: int, seed: int) -> None:
        moments = random.Random(seed)
        self.kind.fresh(self.scene.root)
        length = self.undisturbed()
        before = self.interfaces_and_rules()
        for _ in range(times):
            self.kind.fresh(self.scene.root)
            both = [self.start(), self.start()]
            for process in both:
                try:
                    process.wait(moments.uniform(0.02, length))
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                process.communicate(timeout=PATIENCE)
            self.scene.wait_for_the_end()
            self.undisturbed()
            assert self.left() == []
            self.wait_for(before)

    def wait_for(self, before: tuple[str, str]) -> None:
        """The kernel takes a dead container's network apart a moment after its last process."""
        deadline = time.monotonic() + PATIENCE
        while (now := self.interfaces_and_rules()) != before:
            assert time.monotonic() < deadline, (before, now)
            time.sleep(0.02)


def kill(tmp_path: Path, kind: Kind, times: int, seed: int) -> None:
    killing = Killing(tmp_path, kind)
    server = getattr(kind, "server", None)
    try:
        if server is None:
            killing.run(times, seed)
        else:
            with server.running():
                killing.run(times, seed)
    finally:
        killing.scene.clean_up()


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_twenty_pairs_killed_at_random_moments_leave_nothing(
    bases: WatchedRegistry, registry: str, tmp_path: Path, make: Callable[..., Kind]
) -> None:
    kill(tmp_path, make(tmp_path / "kind", bases, registry), 20, seed=3)
