"""The Engine API on a store of the test's own: in this process for what starts no container, or as `pipe daemon`."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx

from pipeline.cli.daemon import make_api, open_engine
from pipeline.services import Services
from pipeline.settings import load_settings
from runtime.daemon.api import NEWEST, spelled
from runtime.daemon.service import Options, serving
from runtime.images.images import Images
from tests.support.builder import PROJECT

WAIT = 60.0


@dataclass(frozen=True)
class Daemon:
    """A daemon that serves: `http` speaks to it plainly, `docker` is docker-py's client. Paths have no version."""

    path: str
    root: Path
    http: httpx.Client
    docker: docker.DockerClient
    services: Services | None = None  # of one in this process
    process: subprocess.Popen[bytes] | None = None  # of one of its own

    @property
    def images(self) -> Images:
        assert self.services is not None
        return self.services.images

    def raw(self, *parts: bytes) -> bytes:
        """Send raw bytes and read until the daemon closes."""
        with self.connect() as line:
            for part in parts:
                line.sendall(part)
            answer = b""
            while data := line.recv(65536):
                answer += data
            return answer

    def connect(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(WAIT)
        line.connect(self.path)
        return line


@contextmanager
def daemon_here(tmp_path: Path, settings: Mapping[str, str] = {}) -> Iterator[Daemon]:
    """Serve the store `tmp_path/store` from this process; builds with RUN need `daemon_process`."""
    path = str(tmp_path / "pipe.sock")
    flags = {"root": str(tmp_path / "store"), "docker_config": str(tmp_path / "docker"), **settings}
    with ExitStack() as stack:
        services = Services(load_settings(flags, {}, str(tmp_path)))
        stack.callback(services.close)
        api = make_api(services, open_engine(services))
        stack.enter_context(serving(api, Options(hosts=(f"unix://{path}",))))
        yield stack.enter_context(_connected(path, tmp_path / "store", services=services))


@contextmanager
def daemon_process(root: Path, *arguments: str, env: Mapping[str, str] = {}) -> Iterator[Daemon]:
    """`pipe daemon` on the store `root`; it ends with the block."""
    path = str(root.parent / "pipe.sock")
    command = [
        sys.executable,
        "-m",
        "pipeline.cli.main",
        "--root",
        str(root),
        "daemon",
        "--host",
        f"unix://{path}",
    ]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [*command, *arguments],
        env={"PYTHONPATH": str(PROJECT), **kept, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for_line(process, b"serving the Engine API")
        with _connected(path, root, process=process) as daemon:
            yield daemon
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(WAIT)
        finally:
            process.kill()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()


def wait_for_line(process: subprocess.Popen[bytes], beginning: bytes) -> bytes:
    """Read standard output until a line begins so."""
    assert process.stdout is not None and process.stderr is not None
    while select.select([process.stdout], [], [], WAIT)[0]:
        line = process.stdout.readline()
        if line.startswith(beginning):
            return line
        assert line, process.stderr.read()
    raise AssertionError(f"nothing began with {beginning!r}")


@contextmanager
def _connected(path: str, root: Path, **more: Any) -> Iterator[Daemon]:
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(transport=transport, base_url="http://pipe", timeout=WAIT) as http:
        client = docker.DockerClient(base_url=f"unix://{path}", version=spelled(NEWEST), timeout=WAIT)
        try:
            yield Daemon(path, root, http, client, **more)
        finally:
            client.close()
