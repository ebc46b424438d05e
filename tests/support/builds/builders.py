"""Builders by their command lines: ours, buildah, docker. Each builds a context and gives back the image it made."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.builder import run_pipe
from tests.support.builds.archive import Built, read_archive

PATIENCE = 1500


@dataclass(frozen=True)
class Outcome:
    """What came of a build: the image, or why there is none."""

    image: Built | None
    log: str


class Builder(Protocol):
    name: str

    def load(self, archive: Path) -> None:
        """Take the images of a `docker save` archive in."""

    def build(self, context: Path, arguments: Sequence[str] = ()) -> Outcome:
        """Build a context with the Dockerfile in it."""


class Pipe:
    name = "pipe"

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self._work = root, work

    def load(self, archive: Path) -> None:
        run_pipe(self.root, "load", "-i", str(archive))

    def build(self, context: Path, arguments: Sequence[str] = ()) -> Outcome:
        out = self._work / "pipe.tar"
        done = run_pipe(
            self.root, "build", "-o", f"type=docker,dest={out}", *arguments, str(context), code=None
        )
        return _outcome(done, out)


class Buildah:
    """Debian's buildah, with a storage of its own under a short path (its run root must not exceed 50 characters).

    Its driver vfs works everywhere and copies the whole root for every step; `driver_for` names overlay where that can be mounted.
    """

    name = "buildah"

    def __init__(
        self, directory: Path, work: Path, command: Sequence[str] = ("buildah",), driver: str = "vfs"
    ) -> None:
        storage = ("--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", driver)
        self._command, self._work = (*command, *storage), work

    def load(self, archive: Path) -> None:
        names = _names(archive)
        for name in names:
            source = f"docker-archive:{archive}:{name}"
            done = _run(*self._command, "pull", "-q", "--policy", "always", source)
            assert done.returncode == 0, done.stderr.decode()

    def build(self, context: Path, arguments: Sequence[str] = ()) -> Outcome:
        out = self._work / "buildah.tar"
        flags = ("--isolation", "chroot", "--pull-never", "--layers", "--format", "docker", "-t", "case:1")
        done = _run(*self._command, "bud", *flags, *arguments, str(context))
        if done.returncode == 0:
            out.unlink(missing_ok=True)
            pushed = _run(*self._command, "push", "-q", "case:1", f"docker-archive:{out}")
            assert pushed.returncode == 0, pushed.stderr.decode()
        return _outcome(done, out)


def driver_for(directory: Path) -> str:
    """The quickest storage driver for a storage in `directory`."""
    from runtime.store.probing import probe

    found = probe(str(directory))
    return "overlay" if found.holds and not found.refusal else "vfs"


class Docker:
    """`docker build` with BuildKit. `command` may lead into another mount namespace; `work` is seen under one path in both."""

    name = "docker"

    def __init__(self, command: Sequence[str], work: Path, flags: Sequence[str] = ()) -> None:
        self._command, self._work, self._flags = tuple(command), work, tuple(flags)

    def load(self, archive: Path) -> None:
        done = _run(*self._command, "load", "-q", "-i", str(archive))
        assert done.returncode == 0, done.stderr.decode()

    def build(self, context: Path, arguments: Sequence[str] = ()) -> Outcome:
        out = self._work / "docker.tar"
        tag = f"pipe-case-{os.getpid()}"
        flags = ("--progress", "plain", "--provenance=false", "-t", tag, *self._flags)
        if "-f" not in arguments and (context / "Dockerfile").exists():
            flags += ("-f", str(self._without_syntax(context / "Dockerfile")))
        done = _run(*self._command, "build", *flags, *arguments, str(context))
        if done.returncode == 0:
            saved = _run(*self._command, "save", "-o", str(out), tag)
            assert saved.returncode == 0, saved.stderr.decode()
            _run(*self._command, "rmi", "--no-prune", tag)
        return _outcome(done, out)

    def _without_syntax(self, dockerfile: Path) -> Path:
        """A copy without a `# syntax=` line, which would have a front end pulled; lines keep their number."""
        lines = dockerfile.read_bytes().split(b"\n")
        if re.match(rb"# *syntax *=", lines[0]):
            count = 1
            while count < len(lines) and re.match(rb"# *(escape|check) *=", lines[count]):
                count += 1
            lines[:count] = [*lines[1:count], b"# the front end is built in"]
        copy = self._work / "Dockerfile.docker"
        copy.write_bytes(b"\n".join(lines))
        return copy


def docker_from_environment(work: Path) -> Docker | None:
    """The docker of `PIPE_DOCKER` (a command line, as `nsenter -t 1 -m docker`), where there is one."""
    command = os.environ.get("PIPE_DOCKER")
    return Docker(shlex.split(command), work) if command else None


def _outcome(done: subprocess.CompletedProcess[bytes], archive: Path) -> Outcome:
    log = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode:
        return Outcome(None, log)
    try:
        return Outcome(read_archive(archive), log)
    finally:
        archive.unlink()


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


def _names(archive: Path) -> list[str]:
    import json
    import tarfile

    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return [name for image in json.load(manifest) for name in image["RepoTags"]]
