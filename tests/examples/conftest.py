"""A copy of an example, a store of its own, a free port; afterwards nothing of it runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY

PIPE = Path(sys.executable).parent / "pipe"


class Example:
    """An example directory as a user would have it, and the `pipe` command in it."""

    def __init__(self, directory: Path, root: Path, port: int) -> None:
        self.directory, self.root, self.port = directory, root, port
        self.environment = {
            **os.environ,
            "PIPE_ROOT": str(root),
            "PIPE_PROGRESS": "plain",
            "HELLO_PORT": str(port),
            "SHOP_PORT": str(port),
            "PATH": f"{PIPE.parent}:{os.environ['PATH']}",
        }

    def run(self, *words: str, expect: int = 0, timeout: float = 120) -> str:
        """Output and errors of `pipe WORDS`; its exit code must be `expect`."""
        result = subprocess.run(
            [str(PIPE), *words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert result.returncode == expect, (
            f"pipe {' '.join(words)} exited {result.returncode}:\n{result.stdout}"
        )
        return result.stdout

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.directory / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def down(self) -> None:
        """Whatever happened: no container and no network of this store is left."""
        for command in ("ps -aq", "network ls -q"):
            listed = subprocess.run(
                [str(PIPE), *command.split()], env=self.environment, capture_output=True, text=True
            )
            for name in listed.stdout.split():
                remove = ["rm", "-f", "-v"] if command.startswith("ps") else ["network", "rm"]
                subprocess.run([str(PIPE), *remove, name], env=self.environment, capture_output=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def copy_of(name: str, tmp_path: Path) -> Example:
    shutil.copytree(REPOSITORY / "examples" / name, tmp_path / name)
    return Example(tmp_path / name, tmp_path / "root", free_port())


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[Example]:
    example = copy_of("hello", tmp_path)
    try:
        yield example
    finally:
        example.down()
