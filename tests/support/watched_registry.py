"""docker-registry behind a proxy that counts what is asked for, holds blobs back, cuts connections, or says no.

with watched_registry(tmp_path) as registry:
    registry.put("base", "1", image)             # straight into the registry, not counted
    registry.hold(digest, after=1000)            # no byte of the blob beyond these until `let_go`
    ...
    assert registry.fetched(digest) == 1
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from registry_client.client import RegistryClient
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.manifest import Index, Manifest, make_index
from registry_client.oci.platform import Platform
from registry_client.values import replace
from tests.support.registry import docker_registry
from tests.support.registry_images import SmallImage, opener

_PIECE = 16 << 10
_PATIENCE = 120.0
_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")


@dataclass
class Asked:
    method: str
    path: str
    status: int = 0
    range: str = ""


@dataclass
class WatchedRegistry:
    """`host` is the proxy. Rules are by digest and for GET of a blob."""

    backend: str
    client: RegistryClient
    host: str = ""
    asked: list[Asked] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)  # path part -> status
    cuts: dict[str, list[int]] = field(default_factory=dict)  # digest -> after how many bytes, once each
    held: dict[str, tuple[int, threading.Event]] = field(default_factory=dict)
    at_hold: dict[str, threading.Event] = field(default_factory=dict)

    def put(self, repository: str, tag: str, image: SmallImage) -> str:
        for descriptor, data in image.blobs:
            self.client.push_blob(repository, descriptor, opener(data))
        manifest = image.manifest
        return self.client.put_manifest(repository, tag, manifest.raw, manifest.media_type)

    def put_index(self, repository: str, tag: str, images: dict[str, SmallImage]) -> str:
        entries: list[Descriptor] = []
        for platform, image in images.items():
            self.put(repository, image.manifest.digest, image)
            os, _, architecture = platform.partition("/")
            entries.append(replace(image.manifest.descriptor, platform=Platform(os, architecture)))
        index: Index | Manifest = make_index(tuple(entries))
        return self.client.put_manifest(repository, tag, index.raw, index.media_type)

    # --- what was asked -------------------------------------------------------------------------------------------

    def fetched(self, digest: str) -> int:
        """How often the blob was asked for."""
        return sum(each.method == "GET" and each.path.endswith(digest) for each in self.asked)

    def fetched_any(self, image: SmallImage) -> list[str]:
        """The layers of an image that were asked for, each as often as it was."""
        layers = [descriptor.digest for descriptor in image.manifest.layers]
        return [digest for digest in layers for _ in range(self.fetched(digest))]

    def mounted(self, digest: str) -> int:
        return sum(
            each.method == "POST" and f"mount={digest}" in each.path and each.status == 201
            for each in self.asked
        )

    def uploads(self) -> int:
        """Blobs that were sent."""
        return sum(each.method == "PUT" and "/blobs/uploads/" in each.path for each in self.asked)

    def manifests(self, repository: str) -> list[str]:
        """What was asked of a repository's manifests: tags and digests."""
        pattern = re.compile(rf"/v2/{re.escape(repository)}/manifests/([^?]+)")
        found = [(each.method, pattern.match(each.path)) for each in self.asked]
        return [match[1] for method, match in found if match and method in ("GET", "HEAD")]

    # --- rules ----------------------------------------------------------------------------------------------------

    def hold(self, digest: str, after: int = 0) -> threading.Event:
        """Send no byte beyond `after`; the event is set when somebody waits for one."""
        self.held[digest] = (after, threading.Event())
        self.at_hold[digest] = threading.Event()
        return self.at_hold[digest]

    def let_go(self, digest: str) -> None:
        self.held[digest][1].set()


@contextmanager
def watched_registry(tmp_path: Path) -> Iterator[WatchedRegistry]:
    with docker_registry(tmp_path) as registry, RegistryClient(registry.host) as client:
        watched = WatchedRegistry(registry.host, client)
        with _served(watched):
            try:
                yield watched
            finally:
                for _, event in watched.held.values():
                    event.set()


@contextmanager
def _served(watched: WatchedRegistry) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def _any(self) -> None:
            asked = Asked(self.command, self.path, range=self.headers.get("Range", ""))
            watched.asked.append(asked)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            for part, status in watched.refused.items():
                if part in self.path and self.command == "GET":
                    asked.status = status
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self._forward(asked, body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def _forward(self, asked: Asked, body: bytes) -> None:
            connection = http.client.HTTPConnection(watched.backend, timeout=_PATIENCE)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, text in self.headers.items():  # Accept may come several times
                    if name.lower() != "connection":
                        connection.putheader(name, text)
                connection.endheaders(body)
                answer = connection.getresponse()
                asked.status = answer.status
                self.send_response(answer.status)
                for name, text in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, text)
                self.send_header("Content-Length", answer.headers.get("Content-Length") or "0")
                self.end_headers()
                if self.command != "HEAD":
                    self._pass_on(answer)
            finally:
                connection.close()

        def _pass_on(self, answer: http.client.HTTPResponse) -> None:
            digest = self.path.rpartition("/")[2]
            cuts = watched.cuts.get(digest) if "/blobs/" in self.path else None
            cut = cuts.pop(0) if cuts else None
            after, event = watched.held.get(digest, (None, None))
            sent = 0
            while True:
                limits = [_PIECE]
                if cut is not None:
                    limits.append(cut - sent)
                if after is not None and event is not None and not event.is_set():
                    limits.append(after - sent)
                if cut is not None and sent >= cut:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_WR)
                    self.close_connection = True
                    return
                if min(limits) <= 0:
                    assert event is not None
                    self.wfile.flush()
                    watched.at_hold[digest].set()
                    event.wait(_PATIENCE)
                    continue
                data = answer.read(min(limits))
                if not data:
                    return
                self.wfile.write(data)
                sent += len(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    watched.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
