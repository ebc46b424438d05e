from __future__ import annotations

from pathlib import Path

import pytest

from registry_client.clients import Clients, tls_from_directory
from registry_client.endpoint import endpoint_for, is_loopback, parse_mirror
from registry_client.reference import parse_reference


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:80", "[::1]:5000", "x.localhost:1"]
)
def test_loopback_hosts_are_recognised(host: str) -> None:
    assert is_loopback(host)
    assert endpoint_for(host).scheme == ""  # found out; plain http is allowed


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost.example.com",
        "10.0.0.1:5000",
        "128.0.0.1",
        "[fe80::1]:5000",
        "127.0.0.1.evil",
    ],
)
def test_other_hosts_are_spoken_to_with_tls_only(host: str) -> None:
    assert not is_loopback(host)
    assert endpoint_for(host).scheme == "https"
    assert endpoint_for(host).tls.verify


def test_docker_hub_is_reached_at_another_name_than_its_own() -> None:
    endpoint = endpoint_for("docker.io")
    assert endpoint.host == "registry-1.docker.io"
    assert endpoint.credential_host == "docker.io"


def test_an_insecure_host_may_have_any_certificate_or_none() -> None:
    endpoint = endpoint_for("registry.lan:5000", insecure=True)
    assert endpoint.scheme == ""
    assert not endpoint.tls.verify


def test_plain_http_can_be_demanded_and_forbidden() -> None:
    assert endpoint_for("registry.lan", plain_http=True).scheme == "http"
    assert endpoint_for("localhost:5000", plain_http=False).scheme == "https"


def test_a_mirror_may_have_a_path() -> None:
    mirror = parse_mirror("https://mirror.example.com/hub/proxy/")
    assert (mirror.scheme, mirror.host, mirror.prefix) == ("https", "mirror.example.com", "hub/proxy")
    assert parse_mirror("mirror.lan:5000").scheme == "https"
    assert parse_mirror("http://mirror.lan:5000").scheme == "http"


@pytest.mark.parametrize("url", ["", "ftp://x", "https://u@x", "https://x/?q"])
def test_a_wrong_mirror_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="invalid mirror"):
        parse_mirror(url)


def test_tls_material_is_found_as_docker_lays_it_out(tmp_path: Path) -> None:
    for name in ("ca.crt", "more.crt", "client.cert", "client.key", "README"):
        (tmp_path / name).touch()
    tls = tls_from_directory(str(tmp_path))
    assert tls is not None
    assert tls.authorities == (str(tmp_path / "ca.crt"), str(tmp_path / "more.crt"))
    assert (tls.certificate, tls.key) == (str(tmp_path / "client.cert"), str(tmp_path / "client.key"))
    assert tls_from_directory(str(tmp_path / "absent")) is None


def test_there_is_one_client_per_registry() -> None:
    with Clients() as clients:
        first = clients.client(parse_reference("localhost:5000/a"))
        assert clients.client(parse_reference("localhost:5000/b:1")) is first
        assert clients.client(parse_reference("localhost:5001/a")) is not first
