"""A small client of BuildKit's API, which calls what buildx calls, in its order. For where there is no buildx.

What it sends is what was seen of buildx 0.29.1; that the messages are BuildKit's own is judged in tests/unit/control.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from builder.control.filesend import _entries
from builder.control.filesync import Receiver
from builder.control.messages import content, control, gateway
from builder.control.messages.common import Bytes, CacheEntry, Definition, Empty
from builder.control.messages.files import DIRECTORY, Packet, PacketType
from builder.control.messages.session import (
    AgentRequest,
    CredentialsRequest,
    CredentialsResponse,
    SecretRequest,
    SecretResponse,
)
from builder.ignore import Patterns
from builder.ssh import connect
from runtime.grpc.client import call, open_stream
from runtime.grpc.connection import Connection
from runtime.grpc.server import Method, serve, streaming, unary
from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Stream

WAIT = 60.0
_CONTROL, _BRIDGE = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"


@dataclass
class Offered:
    """What this client lends its builds, and what it got: contents sent by path, outputs by number."""

    directories: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    logins: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)  # sockets by name
    layouts: Mapping[str, Path] = field(default_factory=dict)  # by the name of the store
    targets: Mapping[int, Path] = field(default_factory=dict)  # outputs that are directories
    sent: list[str] = field(default_factory=list)
    outputs: dict[int, bytes] = field(default_factory=dict)

    def methods(self) -> dict[str, Method]:
        return {
            "/moby.filesync.v1.FileSync/DiffCopy": self._send,
            "/moby.filesync.v1.FileSend/DiffCopy": self._take,
            "/moby.filesync.v1.Auth/Credentials": unary(CredentialsRequest, self._login),
            "/containerd.services.content.v1.Content/Info": unary(content.InfoRequest, self._blob),
            "/containerd.services.content.v1.Content/Read": streaming(content.ReadRequest, self._read_blob),
            "/containerd.services.content.v1.Content/Write": self._write_blob,
            "/moby.sshforward.v1.SSH/CheckAgent": unary(AgentRequest, self._check_agent),
            "/moby.sshforward.v1.SSH/ForwardAgent": self._forward,
            "/moby.buildkit.secrets.v1.Secrets/GetSecret": unary(SecretRequest, self._secret),
        }

    def _send(self, stream: Stream) -> None:
        name = stream.header("dir-name")
        if name not in self.directories:
            raise GrpcError(Code.NOT_FOUND, f"no access allowed to dir {name!r}")
        root = self.directories[name]
        ignored = Patterns.parse("\n".join(stream.headers.get("exclude-patterns", ())))
        followed = stream.headers.get("followpaths")
        paths = []
        for stat in _entries(str(root)):
            if ignored.excludes(stat.path, bool(stat.mode & DIRECTORY)):
                continue
            if followed is not None and not any(_leads(stat.path, wanted) for wanted in followed):
                continue
            stat.uid = stat.gid = 0
            paths.append(stat.path)
            stream.write(Packet(PacketType.STAT, stat))
        stream.write(Packet(PacketType.STAT))
        for packet in stream.messages(Packet):
            if packet.type == PacketType.END:
                stream.write(Packet(PacketType.END))
                return
            self.sent.append(paths[packet.id])
            data = (root / paths[packet.id]).read_bytes()
            for at in range(0, len(data), 32 << 10):
                stream.write(Packet(PacketType.DATA, id=packet.id, data=data[at : at + (32 << 10)]))
            stream.write(Packet(PacketType.DATA, id=packet.id))

    def _take(self, stream: Stream) -> None:
        number = int(stream.header("buildkit-attachable-exporter-id"))
        if number in self.targets:
            Receiver(stream, str(self.targets[number])).run()
        else:
            self.outputs[number] = b"".join(piece.data for piece in stream.messages(Bytes))

    def _login(self, request: CredentialsRequest, stream: Stream) -> CredentialsResponse:
        return CredentialsResponse(*self.logins.get(request.host, ()))

    def _secret(self, request: SecretRequest, stream: Stream) -> SecretResponse:
        if request.id not in self.secrets:
            raise GrpcError(Code.NOT_FOUND, f"secret {request.id} not found")
        return SecretResponse(self.secrets[request.id])

    def _blob_place(self, digest: str, stream: Stream) -> Path:
        return (
            self.layouts[stream.header("buildkit-attachable-store-id")] / "blobs" / digest.replace(":", "/")
        )

    def _blob(self, request: content.InfoRequest, stream: Stream) -> content.InfoResponse:
        place = self._blob_place(request.digest, stream)
        if not place.exists():
            raise GrpcError(Code.NOT_FOUND, f"content {request.digest}: not found")
        return content.InfoResponse(content.Info(request.digest, place.stat().st_size))

    def _read_blob(self, request: content.ReadRequest, stream: Stream) -> Iterator[content.ReadResponse]:
        data = self._blob_place(request.digest, stream).read_bytes()
        for at in range(0, len(data), 1 << 20):
            yield content.ReadResponse(at, data[at : at + (1 << 20)])

    def _write_blob(self, stream: Stream) -> None:
        """As containerd's: pieces in order, and the digest has to be what was said."""
        data = b""
        for request in stream.messages(content.WriteRequest):
            if request.action == content.WRITE:
                assert request.offset == len(data)
                data += request.data
            elif request.action == content.COMMIT:
                assert f"sha256:{hashlib.sha256(data).hexdigest()}" == request.expected
                place = self._blob_place(request.expected, stream)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            stream.write(content.WriteResponse(request.action, len(data), digest=request.expected))

    def _check_agent(self, request: AgentRequest, stream: Stream) -> Empty:
        if request.id not in self.agents:
            raise GrpcError(Code.NOT_FOUND, f"unset ssh forward key {request.id}")
        return Empty()

    def _forward(self, stream: Stream) -> None:
        with connect(self.agents[stream.header("buildkit.ssh.id")]) as agent:

            def answers() -> None:
                with suppress(OSError, GrpcError):
                    while data := agent.recv(32 << 10):
                        stream.write(Bytes(data))

            back = threading.Thread(target=answers)
            back.start()
            with suppress(GrpcError):
                for piece in stream.messages(Bytes):
                    agent.sendall(piece.data)
            agent.shutdown(socket.SHUT_RDWR)
            back.join(WAIT)


def _leads(path: str, wanted: str) -> bool:
    """Whether it is what is wanted, in it, or on the way there; without fsutil's care for links."""
    parts, pattern = path.split("/"), posixpath.normpath(wanted).split("/")
    return all(fnmatch.fnmatchcase(part, each) for part, each in zip(parts, pattern))


@dataclass
class Built:
    """What the client was told."""

    response: dict[str, str] = field(default_factory=dict)
    error: GrpcError | None = None
    status: control.StatusResponse = field(default_factory=control.StatusResponse)
    metadata: dict[str, bytes] = field(default_factory=dict)  # of a question instead of a build
    result: gateway.Ref | None = None

    @property
    def output(self) -> str:
        return b"".join(log.data for log in self.status.logs).decode()

    def ended(self, name: str) -> control.Vertex:
        """How the step whose name has this in it ended."""
        return [each for each in self.status.vertexes if name in each.name][-1]


class BuildClient:
    def __init__(self, path: str) -> None:
        self.path = path
        self._stack = ExitStack()
        self.grpc = self._connected("/grpc", {})

    def close(self) -> None:
        self._stack.close()

    def _upgraded(
        self, route: str, headers: Mapping[str, str], methods: tuple[str, ...] = ()
    ) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(WAIT)
        line.connect(self.path)
        fields = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "h2c"), *headers.items()]
        fields += [("X-Docker-Expose-Session-Grpc-Method", method) for method in methods]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        line.sendall(f"POST {route} HTTP/1.1\r\n{head}\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = line.recv(1)
            assert byte, answer
            answer += byte
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        line.settimeout(None)
        return line

    def _connected(self, route: str, headers: Mapping[str, str]) -> Connection:
        line = self._stack.enter_context(self._upgraded(route, headers))
        connection = Connection(line)
        connection.start()
        thread = threading.Thread(target=connection.run)
        thread.start()
        self._stack.callback(thread.join, WAIT)
        self._stack.callback(connection.close)
        return connection

    @contextmanager
    def session(self, offered: Offered, shared_key: str = "") -> Iterator[str]:
        """The name of an open session."""
        name, methods = os.urandom(8).hex(), offered.methods()
        headers = {"X-Docker-Expose-Session-Uuid": name, "X-Docker-Expose-Session-Sharedkey": shared_key}
        line = self._upgraded("/session", headers, tuple(methods))
        thread = threading.Thread(target=serve, args=(line, methods))
        thread.start()
        try:
            yield name
        finally:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT)
            line.close()

    def build(
        self,
        offered: Offered,
        attrs: Mapping[str, str] = {},
        exporters: tuple[control.Exporter, ...] = (),
        *,
        shared_key: str = "",
        inputs: Mapping[str, Definition] = {},
        cache_to: tuple[CacheEntry, ...] = (),
    ) -> Built:
        """As `buildx build` does, with a session of its own."""
        with self.session(offered, shared_key) as session:
            return self.build_in(session, attrs, exporters, inputs, cache_to=cache_to)

    def build_in(
        self,
        session: str,
        attrs: Mapping[str, str] = {},
        exporters: tuple[control.Exporter, ...] = (),
        inputs: Mapping[str, Definition] = {},
        entitlements: tuple[str, ...] = (),
        cache_to: tuple[CacheEntry, ...] = (),
    ) -> Built:
        """Three calls side by side, the build function in the middle."""
        request = control.SolveRequest(
            os.urandom(8).hex(),
            session=session,
            exporters=list(exporters),
            entitlements=list(entitlements),
            cache=control.CacheOptions(list(cache_to)),
        )
        built = Built()
        threads = [
            threading.Thread(target=self._solve, args=(request, built)),
            threading.Thread(target=self._follow, args=(request.ref, built)),
            threading.Thread(target=self._function, args=(request.ref, dict(attrs), dict(inputs), built)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        return built

    def _solve(self, request: control.SolveRequest, built: Built) -> None:
        try:
            built.response = call(
                self.grpc, f"{_CONTROL}Solve", request, control.SolveResponse
            ).exporter_response
        except GrpcError as error:
            built.error = error

    def _follow(self, ref: str, built: Built) -> None:
        stream = open_stream(self.grpc, f"{_CONTROL}Status")
        stream.write(control.StatusRequest(ref))
        stream.end_sending()
        for each in stream.messages(control.StatusResponse):
            built.status.vertexes += each.vertexes
            built.status.statuses += each.statuses
            built.status.logs += each.logs
            built.status.warnings += each.warnings

    def _function(self, ref: str, attrs: dict[str, str], inputs: dict[str, Definition], built: Built) -> None:
        metadata = [("buildkit-controlapi-buildid", ref)]
        call(self.grpc, f"{_BRIDGE}Ping", Empty(), gateway.Pong, metadata=metadata)
        asked = gateway.SolveRequest(frontend="dockerfile.v0", options=attrs, inputs=inputs)
        answer = gateway.ReturnRequest()
        try:
            found = call(self.grpc, f"{_BRIDGE}Solve", asked, gateway.SolveResponse, metadata=metadata)
            answer.result = found.result
        except GrpcError as error:
            from runtime.grpc.status import Status

            answer.error = Status(int(error.code), error.message, list(error.details))
        if answer.result is not None:
            built.metadata, built.result = answer.result.metadata, answer.result.ref
        call(self.grpc, f"{_BRIDGE}Return", answer, Empty, metadata=metadata)


@contextmanager
def build_client(path: str) -> Iterator[BuildClient]:
    client = BuildClient(path)
    try:
        yield client
    finally:
        client.close()


def until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true before long; other processes tell nobody when."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
