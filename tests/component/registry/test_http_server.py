"""The HTTP server judged by curl, by httpx, and by raw bytes on a socket."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from runtime.errors import Conflict
from runtime.http.connection import Limits
from runtime.http.messages import FileBody, HttpError, Request, Response, file_response, json_response
from runtime.http.router import Router
from runtime.http.server import Server, listen_tcp, listen_unix
from tests.support.certificates import make_certificates

WAIT = 60.0


@contextmanager
def serving(handler: Callable[[Request], Response], **options: object) -> Iterator[tuple[str, int]]:
    with Server(handler, [listen_tcp("127.0.0.1", 0)], **options) as server:  # type: ignore[arg-type]
        host, _, port = server.addresses[0].rpartition(":")
        yield host, int(port)


def talk(address: tuple[str, int], *parts: bytes, half_close: bool = True) -> bytes:
    """Send raw bytes and read until the server closes."""
    with socket.create_connection(address, timeout=WAIT) as sock:
        for part in parts:
            sock.sendall(part)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer


def echo(request: Request) -> Response:
    return Response(
        200, {}, request.method.encode() + b" " + request.path.encode() + b" " + request.body.read(1 << 30)
    )


def test_several_requests_go_over_one_connection() -> None:
    one = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    two = b"GET /b%20c?q=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(echo) as address:
        answer = talk(address, one + two)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"POST /a abc" in answer
    assert answer.endswith(b"GET /b c ")


def test_a_client_that_closed_its_half_is_still_answered() -> None:
    with serving(echo) as address:
        assert b"GET / " in talk(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", half_close=True)


def test_a_request_in_small_pieces_is_put_together() -> None:
    raw = (
        b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    with serving(echo) as address:
        answer = talk(address, *(raw[n : n + 1] for n in range(len(raw))))
    assert b"PUT /x abcdefg" in answer


def test_an_old_client_is_answered_and_let_go() -> None:
    def stream(request: Request) -> Response:
        return Response(200, {}, iter([b"a", b"b"]))

    with serving(stream) as address:
        answer = talk(address, b"GET / HTTP/1.0\r\n\r\n", half_close=False)
    assert answer.endswith(b"\r\n\r\nab")
    assert b"Transfer-Encoding" not in answer


def test_a_client_that_waits_is_asked_to_go_on_only_when_somebody_reads() -> None:
    head = b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with serving(echo) as address, socket.create_connection(address, timeout=WAIT) as sock:
        sock.sendall(head)
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert b"PUT /x abc" in sock.recv(65536)
    with serving(lambda request: Response(403)) as address:
        answer = talk(address, head, half_close=False)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in answer
    assert b"Connection: close" in answer


def test_a_body_nobody_wants_is_drained_or_the_connection_ends() -> None:
    with serving(lambda request: Response(404)) as address:
        small = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
        assert talk(address, small + small).count(b"HTTP/1.1 404") == 2
        large = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
        assert talk(address, large, half_close=False).count(b"Connection: close") == 1


def test_bodies_stream_in_both_directions_at_once() -> None:
    def upper(request: Request) -> Response:
        return Response(200, {}, (chunk.upper() for chunk in request.body))

    with serving(upper) as address, socket.create_connection(address, timeout=WAIT) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        answer = b""
        while b"ABC" not in answer:  # before the request has ended
            answer += sock.recv(65536)
        sock.sendall(b"1\r\nd\r\n0\r\n\r\n")
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(65536)
    assert b"1\r\nD\r\n" in answer


def test_a_file_is_sent_whole_and_in_parts(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    def handler(request: Request) -> Response:
        return file_response(open(path, "rb"), len(data), request, {"ETag": '"v1"'})

    with (
        serving(handler) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=WAIT) as client,
    ):
        assert client.get("/").content == data
        for asked, part in {
            "bytes=0-9": data[:10],
            "bytes=2999990-": data[-10:],
            "bytes=-5": data[-5:],
            "bytes=5-99999999": data[5:],
        }.items():
            answer = client.get("/", headers={"Range": asked})
            assert (answer.status_code, answer.content) == (206, part)
        assert client.get("/", headers={"Range": "bytes=0-1", "If-Range": '"v0"'}).content == data
        assert client.get("/", headers={"Range": "bytes=0-1,5-6"}).content == data
        behind = client.get("/", headers={"Range": "bytes=3000000-"})
        assert (behind.status_code, behind.headers["content-range"]) == (416, "bytes */3000000")
        head = client.head("/", headers={"Range": "bytes=0-9"})
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "3000000", b"")


def test_a_file_that_shrank_ends_the_connection_instead_of_lying(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")
    with serving(lambda request: Response(200, {}, FileBody(open(path, "rb"), 0, 1000))) as (host, port):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://{host}:{port}/", timeout=WAIT)


def test_a_handler_can_take_the_socket_over() -> None:
    def attach(request: Request) -> Response:
        def takeover(sock: socket.socket, early: bytes) -> None:
            data = early
            while more := sock.recv(65536):
                data += more
            sock.sendall(data.upper())  # although the client has closed its half

        return Response(101, {"Upgrade": "tcp", "Connection": "Upgrade"}, takeover=takeover)

    head = b"POST /attach HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    with serving(attach) as address:
        answer = talk(address, head + b"early ", b"late")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\n")
    assert answer.endswith(b"\r\n\r\nEARLY LATE")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
    ],
)
def test_what_is_no_request_is_refused(raw: bytes, status: bytes) -> None:
    with serving(echo) as address:
        assert talk(address, raw).startswith(b"HTTP/1.1 " + status)


def test_errors_of_handlers_become_answers(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request) -> Response:
        if request.path == "/teapot":
            raise HttpError(418, "short and stout")
        if request.path == "/large":
            request.body.read(10)
        raise ValueError("a bug")

    with (
        serving(handler) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=WAIT) as client,
    ):
        assert (client.get("/teapot").status_code, client.get("/teapot").text) == (418, "short and stout\n")
        assert client.post("/large", content=b"x" * 11).status_code == 413
        broken = client.get("/bug")
    assert broken.status_code == 500
    assert "bug" not in broken.text
    assert "ValueError: a bug" in caplog.text


def test_routes_are_found_by_method_and_pattern() -> None:
    router = Router()
    router.add("GET", "/v2/{name:path}/tags/list", lambda request: json_response(dict(request.params)))
    router.add("PUT", "/v2/{name:path}/manifests/{tag}", lambda request: json_response(dict(request.params)))
    with (
        serving(router) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=WAIT) as client,
    ):
        assert client.get("/v2/a/b/c/tags/list").json() == {"name": "a/b/c"}
        assert client.put("/v2/a/manifests/1.0").json() == {"name": "a", "tag": "1.0"}
        assert client.head("/v2/a/tags/list").headers["content-length"] == "12"
        refused = client.delete("/v2/a/tags/list")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert client.get("/v2/a/manifests/x/y").status_code == 404


def test_a_client_that_says_nothing_is_let_go() -> None:
    with serving(echo, limits=Limits(idle=0.1)) as address:
        assert talk(address, half_close=False) == b""


def test_a_client_that_never_ends_its_head_is_let_go() -> None:
    with serving(echo, limits=Limits(head_time=0.1)) as address:
        assert talk(address, b"GET / HT", half_close=False) == b""


def test_stopping_lets_a_running_request_end_and_idle_connections_go() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(request: Request) -> Response:
        entered.set()
        assert go_on.wait(WAIT)
        return Response(200, {}, b"done")

    server = Server(slow, [listen_tcp("127.0.0.1", 0)])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as idle:
        with socket.create_connection((host, int(port)), timeout=WAIT) as busy:
            busy.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert entered.wait(WAIT)
            stopping = threading.Thread(target=server.stop, args=(WAIT,))
            stopping.start()
            assert idle.recv(1) == b""
            go_on.set()
            answer = b""
            while data := busy.recv(65536):
                answer += data
            stopping.join(WAIT)
    assert answer.endswith(b"done")
    assert b"Connection: close" in answer
    assert not stopping.is_alive()


def test_stopping_cuts_off_what_does_not_end() -> None:
    def endless(request: Request) -> Response:
        return Response(200, {}, iter(lambda: b"x" * 1000, None))

    server = Server(endless, [listen_tcp("127.0.0.1", 0)])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(10)
        server.stop(grace=0.1)


def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with Server(echo, [listen_unix(path)]) as server:
        assert server.addresses == (path,)
        assert os.stat(path).st_mode & 0o777 == 0o660
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=WAIT) as client:
            assert client.get("http://x/y").text == "GET /y "
        with pytest.raises(Conflict, match="somebody is listening"):
            listen_unix(path)
    assert not os.path.exists(path)


def test_a_socket_nobody_listens_on_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with listen_unix(path) as taken:
        assert taken.getsockname() == path
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Conflict, match="is no socket"):
        listen_unix(str(tmp_path / "file"))


def test_a_port_in_use_is_reported() -> None:
    with listen_tcp("127.0.0.1", 0) as taken, pytest.raises(Conflict, match="is in use"):
        listen_tcp("127.0.0.1", taken.getsockname()[1])


def test_tls_is_spoken_where_asked_for(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    data = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(data)

    def handler(request: Request) -> Response:
        return Response(200, {}, FileBody(open(tmp_path / "file", "rb"), 0, len(data)))

    with serving(handler, tls=context) as (host, port):
        trust = ssl.create_default_context(cafile=str(made.authority))
        with httpx.Client(verify=trust, timeout=WAIT) as client:
            assert client.get(f"https://{host}:{port}/").content == data
        try:
            unencrypted = talk((host, port), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        except OSError:
            unencrypted = b""
        assert not unencrypted.startswith(b"HTTP")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_uploads_and_downloads(tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "in").write_bytes(data)
    with serving(lambda request: Response(200, {}, iter([request.body.read(1 << 30)]))) as (host, port):
        url = f"http://{host}:{port}/"
        subprocess.run(
            [
                "curl",
                "-sSf",
                "-T",
                tmp_path / "in",
                "-H",
                "Expect: 100-continue",
                "-o",
                tmp_path / "out",
                url,
            ],
            check=True,
            timeout=WAIT,
        )
    assert (tmp_path / "out").read_bytes() == data
