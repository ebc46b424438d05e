"""`docker build` with BuildKit by a command line from before buildx, as Debian 12's (20.10): where `PIPE_OLDER_DOCKER` says.

Anywhere else the same request is made by `test_buildkit`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import make_base, write_files
from tests.support.daemon import Daemon, daemon_process
from tests.support.networks import own_host

DOCKER = os.environ.get("PIPE_OLDER_DOCKER", "")
pytestmark = [
    pytest.mark.linux,
    pytest.mark.peer,
    pytest.mark.skipif(not DOCKER, reason="PIPE_OLDER_DOCKER does not say where such a docker is"),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("d")
    with own_host():
        make_base(directory / "store", directory / "base")
        with daemon_process(directory / "store") as found:
            yield found


def build(daemon: Daemon, home: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [DOCKER, "--host", f"unix://{daemon.path}", "build", "--progress", "plain", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_BUILDKIT": "1"},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    assert done.returncode == code, done.stdout
    return done.stdout.decode()


def test_it_builds_as_it_did_with_dockers_daemon(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path, {"secret": "0123456789"})
    text = "FROM base:1\nARG X\nCOPY a /a\nRUN --mount=type=secret,id=s echo $X; cat /a; wc -c < /run/secrets/s\n"
    write_files(tmp_path / "c", {"Dockerfile": text, "a": "hello\n"})
    given = ("--build-arg", "X=given", "--secret", "id=s,src=secret", "-t", "old:1", "c")
    told = build(daemon, tmp_path, *given)
    assert " given\n" in told and " hello\n" in told and " 10\n" in told and "0123456789" not in told
    assert "CACHED" in build(daemon, tmp_path, *given)
    assert daemon.docker.images.get("old:1").tags == ["old:1"]


def test_its_output_comes_back_and_its_mistakes_are_told(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM scratch\nCOPY a /d/\n", "a": "1"})
    build(daemon, tmp_path, "-o", "out", "c")
    assert (tmp_path / "out" / "d" / "a").read_text() == "1"
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN exit 9\n"})
    assert "exit code 9" in build(daemon, tmp_path, "c", code=1)
