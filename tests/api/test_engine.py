"""What every client asks first: ping, version, info; and what is said of paths and versions that are not there."""

from __future__ import annotations

import os
import platform
import socket
import stat
from pathlib import Path

import docker
import pytest

from runtime.daemon.api import Route
from runtime.http.messages import Request, Response
from tests.support.daemon import Daemon, daemon_here
from tests.support.engine_schema import conforms


def test_ping_tells_the_version_and_is_not_kept(daemon: Daemon) -> None:
    for method in ("GET", "HEAD"):
        answer = daemon.http.request(method, "/_ping")
        assert answer.status_code == 200
        assert answer.text == ("OK" if method == "GET" else "")
        assert answer.headers["api-version"] == "1.51"
        assert answer.headers["ostype"] == "linux"
        assert answer.headers["builder-version"] == "2"
        assert answer.headers["docker-experimental"] == "false"
        assert answer.headers["swarm"] == "inactive"
        assert "no-store" in answer.headers["cache-control"]
        assert answer.headers["server"].startswith("pipe/")


def test_a_version_between_the_oldest_and_the_newest_is_served(daemon: Daemon) -> None:
    for version in ("v1.24", "v1.45", "v1.51"):
        assert daemon.http.get(f"/{version}/version").json()["ApiVersion"] == "1.51"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.52", "client version 1.52 is too new. Maximum supported API version is 1.51"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.51"),
        ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"),
    ],
)  # fmt: skip
def test_other_versions_are_refused_in_dockers_words(daemon: Daemon, version: str, said: str) -> None:
    answer = daemon.http.get(f"/v{version}/version")
    assert (answer.status_code, answer.json()) == (400, {"message": said})
    assert answer.headers["api-version"] == "1.51", "so that the client can try again"


def test_what_is_not_served_is_no_page(daemon: Daemon) -> None:
    for method, path in (("GET", "/nope"), ("POST", "/version"), ("GET", "/v1.x/version"), ("GET", "/v1.44")):
        answer = daemon.http.request(method, path)
        assert (answer.status_code, answer.json()) == (404, {"message": "page not found"})


def test_version_and_info_are_as_docker_describes_them(daemon: Daemon) -> None:
    conforms("SystemVersion", daemon.http.get("/version").json())
    conforms("SystemInfo", daemon.http.get("/info").json())


def test_info_is_true(daemon: Daemon) -> None:
    info = daemon.docker.info()
    assert info["KernelVersion"] == platform.release()
    assert info["MemTotal"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert info["NCPU"] == len(os.sched_getaffinity(0))
    assert info["DockerRootDir"] == str(daemon.root)
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert (info["Images"], info["Containers"]) == (0, 0)


def test_the_engine_keeps_its_name(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        with daemon_here(tmp_path) as daemon:
            names.append(daemon.docker.info()["ID"])
    assert names[0] == names[1] != ""


def test_a_client_finds_the_version_to_speak(daemon: Daemon) -> None:
    client = docker.DockerClient(base_url=f"unix://{daemon.path}", version="auto")
    try:
        assert client.ping()
        assert client.version()["Platform"]["Name"] == "pipe"
    finally:
        client.close()


def test_the_socket_is_for_its_group_only(daemon: Daemon) -> None:
    assert stat.S_IMODE(os.stat(daemon.path).st_mode) == 0o660


def test_routes_can_be_added_and_a_connection_handed_over(tmp_path: Path) -> None:
    from pipeline.cli.daemon import make_api, open_engine
    from pipeline.services import Services
    from pipeline.settings import load_settings
    from runtime.daemon.service import Options, serving

    def echo(request: Request) -> Response:
        def take(line: socket.socket, begun: bytes) -> None:
            while len(begun) < 4:
                begun += line.recv(100)
            line.sendall(begun.upper())

        return Response(101, {"Connection": "Upgrade", "Upgrade": "h2c"}, takeover=take)

    services = Services(load_settings({"root": str(tmp_path / "store")}, {}, str(tmp_path)))
    path = str(tmp_path / "pipe.sock")
    try:
        api = make_api(services, open_engine(services))
        added: list[Route] = [("POST", "/echo", echo)]
        api.add(added)
        with serving(api, Options(hosts=(f"unix://{path}",))):
            client = Daemon(path, tmp_path, None, None)  # type: ignore[arg-type]
            head = b"POST /v1.51/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            answer = client.raw(head + b"ab", b"cd")
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert answer.endswith(b"\r\n\r\nABCD")
            ping = client.raw(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"\r\nBuilder-Version: 2\r\n" in ping
    finally:
        services.close()
