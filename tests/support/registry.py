"""Debian's `docker-registry` on a free loopback port: the foreign registry our client is judged by.

    with docker_registry(tmp_path) as registry:                       # plain http, no authentication
    with docker_registry(tmp_path, auth="basic", tls=True) as registry:
    with docker_registry(tmp_path, auth="token") as registry:

`registry.host` is "127.0.0.1:PORT". The process is ended with the block; what it stored lies below `tmp_path`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import Certificates, make_certificates
from tests.support.token_server import ISSUER, SERVICE, TokenServer, token_server

USER, PASSWORD = "ci", "a secret: with colon"
_START_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class ForeignRegistry:
    """Where the registry listens and how to be let in."""

    host: str
    log: Path
    storage: Path
    user: str = ""
    password: str = ""
    certificates: Certificates | None = None
    tokens: TokenServer | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://{self.host}"


@contextmanager
def docker_registry(
    tmp_path: Path, *, auth: str = "", tls: bool = False, anonymous_actions: tuple[str, ...] = ()
) -> Iterator[ForeignRegistry]:
    """Run docker-registry for the length of the block; skips the test where Debian's package is missing."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("Debian's package docker-registry is not installed")
    directory = tmp_path / f"registry-{uuid.uuid4().hex[:8]}"
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        certificates = make_certificates(directory / "tls") if tls else None
        tokens = None
        if auth == "token":
            tokens = stack.enter_context(token_server(directory, USER, PASSWORD, anonymous_actions))
        config = directory / "config.yml"
        config.write_text(yaml.safe_dump(_configuration(directory, auth, certificates, tokens)))
        log = directory / "log"
        host = stack.enter_context(_running(program, config, log))
        user, password = (USER, PASSWORD) if auth else ("", "")
        yield ForeignRegistry(host, log, directory / "data", user, password, certificates, tokens)


def _configuration(
    directory: Path, auth: str, certificates: Certificates | None, tokens: TokenServer | None
) -> dict[str, object]:
    http: dict[str, object] = {"addr": "127.0.0.1:0", "secret": "tests", "relativeurls": True}
    if certificates:
        http["tls"] = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "data")},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": http,
    }
    if auth == "basic":
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(_htpasswd(directory))}}
    elif tokens:
        config["auth"] = {
            "token": {
                "realm": tokens.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(tokens.bundle),
            }
        }
    return config


def _htpasswd(directory: Path) -> Path:
    import bcrypt

    path = directory / "htpasswd"
    path.write_bytes(USER.encode() + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    return path


@contextmanager
def _running(program: str, config: Path, log: Path) -> Iterator[str]:
    # Port 0 lets the kernel choose; the registry tells in its log what it got.
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [program, "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={"OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        yield _listening_address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listening_address(process: subprocess.Popen[bytes], log: Path) -> str:
    limit = time.monotonic() + _START_LIMIT
    while time.monotonic() < limit:
        text = log.read_text(errors="replace")
        match = re.search(r"listening on (127\.0\.0\.1:[0-9]+)", text)
        if match:
            return match[1]
        if process.poll() is not None:
            raise RuntimeError(f"docker-registry exited with {process.returncode}: {text[-2000:]}")
        time.sleep(0.02)
    raise RuntimeError(
        f"docker-registry did not start within {_START_LIMIT:.0f} s: {log.read_text()[-2000:]}"
    )
