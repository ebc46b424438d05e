"""Kill -9 at any moment: the next build succeeds, gives the digest of an undisturbed one, and nothing is left over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.builder import PROJECT, build, busybox_context

pytestmark = pytest.mark.linux
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
PATIENCE = 60.0
DOCKERFILE = """FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
FROM base AS left
RUN for i in 1 2 3 4 5; do echo $i > /left-$i; done
RUN mkdir -p /deep/er && echo one > /deep/er/file && ln /deep/er/file /deep/link
FROM base AS right
COPY files /files
RUN rm -r /files/d1 && echo changed > /files/d0/f0
FROM base
COPY --from=left /deep /deep
COPY --from=right /files /files
WORKDIR /app
RUN --mount=type=bind,source=files,target=/src cp -r /src/d2 . && touch done
"""


class Scene:
    """A context, and the marks by which everything that belongs to this test is found."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "store"
        self.cgroup = f"pipe-kill-{os.getpid()}-{random.randrange(1 << 30):x}"
        files = {f"files/d{d}/f{f}": f"{d} {f}\n" * 50 for d in range(4) for f in range(40)}
        self.context = busybox_context(directory / "context", {"Dockerfile": DOCKERFILE, **files})
        self.arguments = ("--cgroup-parent", self.cgroup, "-o", "type=image,rewrite-timestamp=true")

    def build(self, root: Path | None = None) -> str:
        return build(root or self.root, self.context, *self.arguments, env=EPOCH)

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "pipeline.cli.main",
            "--root",
            str(self.root),
            "build",
            "-q",
            "--no-cache",
        ]
        env = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], **EPOCH}
        return subprocess.Popen(
            [*command, *self.arguments, str(self.context)],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def leftovers(self) -> list[str]:
        """Mounts, processes, control groups, half-made files and rows of this store."""
        found = [
            line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.root) in line
        ]
        found += [f"process {pid}" for pid in os.listdir("/proc") if pid.isdigit() and self._is_ours(pid)]
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            parent = hierarchy / self.cgroup
            if parent.is_dir():
                found += [str(each) for each in parent.iterdir() if each.is_dir()]
        found += [f"draft {name}" for name in os.listdir(self.root / "drafts")]
        found += [f"mount point {name}" for name in os.listdir(self.root / "mnt")]
        found += [f"lock {name}" for name in os.listdir(self.root / "locks") if name.startswith("step-")]
        return found + self._rows()

    def _is_ours(self, pid: str) -> bool:
        try:
            return str(self.root).encode() in Path("/proc", pid, "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _rows(self) -> list[str]:
        from runtime.store import Store

        with Store.open(str(self.root)) as store:
            rows = store.db.read("SELECT id FROM endpoints")
            loose = store.db.read(
                "SELECT id FROM snapshots WHERE id NOT IN (SELECT snapshot FROM chains)"
                " AND id NOT IN (SELECT snapshot FROM cache_records)"
            )
        return [f"endpoint {row['id']}" for row in rows] + [
            f"snapshot without a name {row['id']}" for row in loose
        ]

    def wait_for_the_end(self) -> None:
        """Containers of a killed build die with it, a moment later."""
        deadline = time.monotonic() + PATIENCE
        while any(self._is_ours(pid) for pid in os.listdir("/proc") if pid.isdigit()):
            assert time.monotonic() < deadline, self.leftovers()
            time.sleep(0.02)

    def clean_up(self) -> None:
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            parent = hierarchy / self.cgroup
            if parent.is_dir():
                for each in parent.iterdir():
                    if each.is_dir():
                        each.rmdir()
                parent.rmdir()


def kill_often(directory: Path, times: int, seed: int) -> None:
    scene = Scene(directory)
    try:
        begin = time.monotonic()
        expected = scene.build(directory / "undisturbed")
        length = time.monotonic() - begin
        moments = random.Random(seed)
        for _ in range(times):
            running = scene.start()
            try:
                running.wait(moments.uniform(0.05, length))
            except subprocess.TimeoutExpired:
                os.kill(running.pid, signal.SIGKILL)
            running.wait()
            scene.wait_for_the_end()
            assert scene.build() == expected
            assert scene.leftovers() == []
    finally:
        scene.clean_up()


def test_builds_killed_at_random_moments_leave_nothing(tmp_path: Path) -> None:
    kill_often(tmp_path, 6, seed=os.getpid())


@pytest.mark.slow
def test_fifty_builds_killed_at_random_moments_leave_nothing(tmp_path: Path) -> None:
    kill_often(tmp_path, 50, seed=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_build_stops_its_steps_and_says_so(root: Path, tmp_path: Path, number: int) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM base:1\nRUN echo begun && sleep 300\n")
    before = os.listdir(root / "drafts")
    command = [sys.executable, "-m", "pipeline.cli.main", "--root", str(root), "--progress", "plain", "build"]
    env = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "-f", str(dockerfile), str(tmp_path)],
        env=env,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            # Not the step's name, which holds the word too.
            if line.rstrip().endswith(b"begun"):
                break
        running.send_signal(number)
        running.stdout.read()
        assert running.wait(PATIENCE) == 130
    assert os.listdir(root / "drafts") == before
