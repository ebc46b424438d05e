"""Kill -9 while the files of an earlier snapshot are linked: the next build gives the image of a store that never saw the context."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.store import Store
from tests.linux.builder.test_kills import Scene
from tests.support.builder import PROJECT, build, write_files

pytestmark = pytest.mark.linux
# Files that were just made are not remembered, unless they count as quiet.
QUIET = (
    "import sys, builder.digests, builder.operations.copyworker\n"
    "builder.digests._QUIET_NS = builder.operations.copyworker._QUIET_NS = -10**15\n"
    "from pipeline.cli.main import main\n"
    "sys.exit(main())"
)


class Changing(Scene):
    """A context of which one file changes each time; only few steps."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.root = directory, directory / "store"
        self.cgroup = f"pipe-kill-{os.getpid()}-{random.randrange(1 << 30):x}"
        files = {f"files/d{d:02}/f{f}": f"{d} {f}\n" * 50 for d in range(40) for f in range(60)}
        self.context = write_files(
            directory / "context", {"Dockerfile": "FROM scratch\nCOPY files /files\n", **files}
        )
        self.arguments = ()

    def change(self, number: int) -> None:
        (self.context / "files" / f"d{number % 40:02}" / "f0").write_text(f"changed {number}")

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", QUIET, "--root", str(self.root), "build", "-q", str(self.context)],
            env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1700000000"},
            stdout=subprocess.PIPE,
        )

    def finished(self) -> str:
        running = self.start()
        out, _ = running.communicate()
        assert running.returncode == 0
        return out.decode().strip()

    def most_names(self) -> int:
        """Of one file in all snapshots together."""
        return max(path.stat().st_nlink for path in self.root.glob("snapshots/*/fs*/files/d39/f1"))

    def loose_lines(self) -> int:
        with Store.open(str(self.root)) as store:
            sql = "SELECT count(*) AS n FROM cache_lines WHERE id NOT IN (SELECT piece FROM cache_pieces)"
            return int(store.db.read(sql)[0]["n"])


def test_builds_killed_while_they_link_leave_nothing(tmp_path: Path) -> None:
    scene = Changing(tmp_path)
    moments = random.Random(os.getpid())
    scene.finished()
    begin = time.monotonic()
    scene.change(0)
    scene.finished()
    length = time.monotonic() - begin
    for number in range(1, 6):
        scene.change(number)
        running = scene.start()
        try:
            running.communicate(timeout=moments.uniform(length / 4, length))
        except subprocess.TimeoutExpired:
            os.kill(running.pid, signal.SIGKILL)
            running.communicate()
        scene.wait_for_the_end()
        image = scene.finished()
        new = build(tmp_path / f"new-{number}", scene.context, env={"SOURCE_DATE_EPOCH": "1700000000"})
        assert image == new
        assert scene.leftovers() == []
        assert scene.loose_lines() == 0
        assert scene.most_names() > number


def test_two_builds_at_once_link_to_the_same_files(tmp_path: Path) -> None:
    scene = Changing(tmp_path)
    scene.finished()
    for number in range(1, 4):
        scene.change(number)
        both = [scene.start(), scene.start()]
        images = {running.communicate()[0].decode().strip() for running in both}
        assert [running.returncode for running in both] == [0, 0]
        new = build(tmp_path / f"new-{number}", scene.context, env={"SOURCE_DATE_EPOCH": "1700000000"})
        assert images == {new}
        assert scene.leftovers() == []
        assert scene.loose_lines() == 0
        assert scene.most_names() > number
