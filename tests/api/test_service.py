"""The daemon as a process: one per socket, a socket that was left behind, its pid file, TLS, and its end."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from runtime.daemon.service import Options, Tls, check_exposure, parse_host
from runtime.errors import InvalidInput
from tests.support.builder import PROJECT, run_pipe
from tests.support.certificates import make_certificates
from tests.support.daemon import WAIT, daemon_process, wait_for_line

pytestmark = pytest.mark.linux  # it forks its spawner and leaves the host's mount namespace


def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with daemon_process(tmp_path / "store", "--pidfile", str(pidfile)) as daemon:
        assert daemon.process is not None
        assert int(pidfile.read_text()) == daemon.process.pid
        assert daemon.http.get("/_ping").text == "OK"
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(WAIT) == 0
    assert not pidfile.exists()
    assert not os.path.exists(daemon.path)


def test_a_second_one_on_the_same_socket_is_refused(tmp_path: Path) -> None:
    with daemon_process(tmp_path / "store") as daemon:
        done = run_pipe(tmp_path / "store", "daemon", "--host", f"unix://{daemon.path}", code=1)
        assert f"somebody is listening on {daemon.path}" in done.stderr.decode()
        assert daemon.http.get("/_ping").text == "OK", "and the first one still serves"


def test_the_socket_and_pid_file_of_a_killed_one_are_replaced(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with daemon_process(tmp_path / "store", "--pidfile", str(pidfile)) as daemon:
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait(WAIT)
        assert os.path.exists(daemon.path) and pidfile.exists()
    with daemon_process(tmp_path / "store", "--pidfile", str(pidfile)) as daemon:
        assert daemon.http.get("/_ping").text == "OK"


def test_a_pid_file_of_a_living_process_is_respected(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(str(os.getpid()))
    done = run_pipe(tmp_path / "store", "daemon", "--pidfile", str(pidfile), code=1)
    assert f"process {os.getpid()} of {pidfile} is still running" in done.stderr.decode()
    assert pidfile.read_text() == str(os.getpid())


def test_clients_have_to_show_a_certificate(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    command = [
        sys.executable, "-m", "pipeline.cli.main", "--root", str(tmp_path / "store"), "daemon", "--host", "tcp://127.0.0.1:0",
        "--tlsverify", "--tlscacert", str(made.authority), "--tlscert", str(made.certificate), "--tlskey", str(made.key),
    ]  # fmt: skip
    with subprocess.Popen(
        command, env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        try:
            address = wait_for_line(process, b"serving").split()[-1].decode()
            url = address.replace("tcp://", "https://") + "/_ping"
            trusting = ssl.create_default_context(cafile=str(made.authority))
            with pytest.raises(httpx.HTTPError), httpx.Client(verify=trusting) as nobody:
                nobody.get(url)
            trusting.load_cert_chain(str(made.certificate), str(made.key))
            with httpx.Client(verify=trusting) as known:
                assert known.get(url).text == "OK"
        finally:
            process.terminate()


def test_hosts_are_read_as_docker_writes_them() -> None:
    assert parse_host("unix:///run/pipe.sock").path == "/run/pipe.sock"
    assert parse_host("/run/pipe.sock").path == "/run/pipe.sock"
    assert (parse_host("tcp://10.0.0.1").host, parse_host("tcp://10.0.0.1").port) == ("10.0.0.1", 2375)
    assert parse_host("tcp://10.0.0.1", tls=True).port == 2376
    assert (parse_host("tcp://[::1]:99").host, parse_host("tcp://[::1]:99").port) == ("::1", 99)
    for wrong in ("fd://", "unix://", "http://x", "tcp://x:99999", "tcp://x:y"):
        with pytest.raises(InvalidInput):
            parse_host(wrong)


def test_an_open_address_without_client_certificates_is_refused() -> None:
    plain = Options(hosts=())
    check_exposure(parse_host("tcp://127.0.0.1:1"), plain)
    for options in (plain, Options(hosts=(), tls=Tls(certificate="c", key="k"))):
        with pytest.raises(InvalidInput, match="refusing to serve"):
            check_exposure(parse_host("tcp://0.0.0.0:1"), options)
    check_exposure(parse_host("tcp://0.0.0.0:1"), Options(hosts=(), plain_tcp=True))
    check_exposure(
        parse_host("tcp://0.0.0.0:1"), Options(hosts=(), tls=Tls(certificate="c", key="k", authority="a"))
    )
