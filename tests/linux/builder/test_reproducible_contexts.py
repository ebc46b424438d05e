"""`pipe build --verify-reproducible` of what is no directory: standard input, URLs, several platforms, whole projects."""

from __future__ import annotations

import functools
import http.server
import io
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.linux.builder.test_reproducible import ENVIRONMENT, REWRITE, verified
from tests.support.builder import run_pipe, write_files

pytestmark = pytest.mark.linux


@pytest.fixture
def context(tmp_path: Path) -> Path:
    lines = "FROM base:1\nWORKDIR /a/b\nCOPY data /made/here/\nRUN date > /dev/null\n"
    return write_files(tmp_path / "context", {"Dockerfile": lines, "data/one": "1", "data/sub/two": "2"})


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of a directory's files."""
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


DIFFERS = "FROM base:1\nRUN hostname > /name\n"


def packed(context: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.add(context, ".")
    return stream.getvalue()


def verified_from_input(root: Path, data: bytes, *arguments: str, code: int) -> str:
    done = run_pipe(
        root, "build", "--verify-reproducible", *REWRITE, *arguments, stdin=data, code=code, env=ENVIRONMENT
    )
    return (done.stdout + done.stderr).decode()


def test_standard_input_is_read_for_each_of_the_builds(root: Path, context: Path) -> None:
    assert "reproducible: two builds" in verified_from_input(
        root, packed(context), "-t", "stdin:1", "-", code=0
    )
    assert len(run_pipe(root, "images", "-q", "stdin:1").stdout.split()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["context", "Dockerfile", "Dockerfile alone"])
def test_what_differs_is_found_whatever_comes_by_standard_input(root: Path, context: Path, form: str) -> None:
    (context / "Dockerfile").write_text(DIFFERS)
    data = packed(context) if form == "context" else DIFFERS.encode()
    words = ["-f", "-", str(context)] if form == "Dockerfile" else ["-"]
    told = verified_from_input(root, data, *words, code=1)
    assert "/name content at byte 0: 'buildkitsandbox\\n' / 'machine-two\\n'" in told


@pytest.mark.slow
def test_a_repository_and_an_archive_from_a_server_are_contexts_too(
    root: Path, context: Path, tmp_path: Path
) -> None:
    commands = (
        "init -q -b main",
        "add -A",
        "-c user.name=a -c user.email=a@b commit -qm one",
        "update-server-info",
    )
    for command in commands:
        subprocess.run(["git", "-C", str(context), *command.split()], check=True)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "repo.git").symlink_to(context / ".git")
    (tmp_path / "served" / "context.tar.gz").write_bytes(packed(context))
    with served(tmp_path / "served") as url:
        for name in ("repo.git", "context.tar.gz"):
            done = run_pipe(
                root, "build", "--verify-reproducible", *REWRITE, f"{url}/{name}", env=ENVIRONMENT
            )
            assert b"reproducible: two builds" in done.stdout + done.stderr


def test_of_several_platforms_each_is_compared(root: Path, tmp_path: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY --chmod=600 $TARGETARCH /made\n"
    context = write_files(tmp_path / "both", {"Dockerfile": text, "amd64": "1", "arm64": "2"})
    both = ("--platform", "linux/amd64,linux/arm64")
    told = verified(root, context, *REWRITE, *both, code=0)
    assert len(re.findall(r"sha256:[0-9a-f]{64}", told.partition("two builds gave")[2].splitlines()[0])) == 2
    # What differs on the second platform only: a command that runs where the first one builds.
    (context / "Dockerfile").write_text(
        "FROM --platform=$BUILDPLATFORM base:1 AS make\nARG TARGETARCH\n"
        "RUN if [ $TARGETARCH = arm64 ]; then hostname > /made; else echo same > /made; fi\n"
        "FROM scratch\nCOPY --from=make /made /\n"
    )
    told = verified(root, context, *REWRITE, *both, code=1)
    assert "not reproducible for linux/arm64: layer 1" in told
    assert "/made content at byte 0" in told


# --- the images of a pipe.yaml ------------------------------------------------------------------------------------

PROJECT = """name: verify
secrets: {token: {env: TOKEN}}
images:
  one: {context: one, rewrite_timestamp: true, args: {WHO: me}, secrets: [token]}
  two:
    rewrite_timestamp: true
    additional_contexts: {first: "image:one"}
    dockerfile_inline: |
      FROM first
      RUN echo "%s" > /two
"""
ONE = "FROM base:1\nARG WHO\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /one; echo $WHO >> /one\n"


def project(directory: Path, two: str) -> Path:
    return write_files(directory / "project", {"pipe.yaml": PROJECT % two, "one/Dockerfile": ONE})


def verified_project(root: Path, directory: Path, *names: str, code: int) -> str:
    env = {**ENVIRONMENT, "TOKEN": "s3cret-token-value"}
    done = run_pipe(root, "build", "--verify-reproducible", *names, cwd=directory, code=code, env=env)
    text = (done.stdout + done.stderr).decode()
    assert "s3cret-token-value" not in text
    return text


def test_each_image_of_a_project_is_built_twice_those_it_builds_on_first(root: Path, tmp_path: Path) -> None:
    directory = project(tmp_path, "equal")
    text = verified_project(root, directory, code=0)
    assert text.count("reproducible: two builds gave") == 2
    assert "#1 CACHED" in text.rpartition("two builds gave")[2], "the pipeline's own build finds all of it"
    for image in ("verify-one", "verify-two"):
        assert len(run_pipe(root, "images", "-q", f"{image}:latest").stdout.split()) == 1


def test_an_image_of_a_project_that_differs_is_named_and_not_tagged(root: Path, tmp_path: Path) -> None:
    directory = project(tmp_path, "$(hostname)")
    run_pipe(root, "rmi", "-f", "verify-two:latest", code=None)
    text = verified_project(root, directory, code=1)
    assert "image two: not reproducible: layer " in text
    assert "/two content at byte 0: 'buildkitsandbox\\n' / 'machine-two\\n'" in text
    assert run_pipe(root, "images", "-q", "verify-two:latest").stdout == b""
    assert "two builds gave" in verified_project(root, directory, "one", code=0)
