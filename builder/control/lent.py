"""What a client lends a build: secrets, logins, ssh agents. Each is asked for when it is needed, and kept in memory only."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress

from builder.control.messages.common import Bytes, Empty
from builder.control.messages.session import (
    AgentRequest,
    CredentialsRequest,
    CredentialsResponse,
    SecretRequest,
    SecretResponse,
)
from builder.control.sessions import Session
from builder.ssh import AgentWanted
from registry_client.credentials import Credential
from runtime.errors import Unavailable
from runtime.grpc.status import Code, GrpcError
from runtime.grpc.stream import Stream
from runtime.store.durable import remove_tree
from runtime.store.owners import own_token

_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
_PIECE = 32 << 10


class LentSecrets(Mapping[str, bytes]):
    """Values by id. It counts those that were asked for: the client does not say which ones it has."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self._known:
            if not self._session.offers(_SECRET):
                raise KeyError(name)
            try:
                found = self._session.call(_SECRET, SecretRequest(name), SecretResponse)
            except GrpcError as error:
                if error.code is Code.NOT_FOUND:
                    raise KeyError(name) from None
                raise Unavailable(f"the client does not give the secret {name!r}: {error.message}") from None
            self._known[name] = found.data
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<secrets of {self._session.name!r}>"


class LentCredentials:
    """The client's logins (`registry_client.credentials.Credentials`)."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, host: str) -> Credential | None:
        if not self._session.offers(_CREDENTIALS):
            return None
        try:
            found = self._session.call(_CREDENTIALS, CredentialsRequest(host), CredentialsResponse)
        except GrpcError as error:
            if error.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                return None
            raise Unavailable(f"the client does not give its login for {host}: {error.message}") from None
        if found.username:
            return Credential(found.username, found.secret)
        return Credential(identity_token=found.secret) if found.secret else None


class LentAgents(Mapping[str, AgentWanted]):
    """Agents by name, each a socket here behind which the client's own agent answers. A context manager."""

    def __init__(self, session: Session, root: str) -> None:
        self._session, self._root = session, root
        self._lock = threading.Lock()
        self._known: dict[str, AgentWanted] = {}
        self._stack = ExitStack()

    def __enter__(self) -> LentAgents:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> AgentWanted:
        with self._lock:
            if name not in self._known:
                if not self._session.offers(_CHECK_AGENT):
                    raise KeyError(name)
                try:
                    self._session.call(_CHECK_AGENT, AgentRequest(name), Empty)
                except GrpcError:
                    raise KeyError(name) from None
                self._known[name] = AgentWanted(self._listen(name))
            return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def _listen(self, name: str) -> str:
        directory = os.path.join(self._root, "drafts", f"{os.urandom(8).hex()}.{own_token()}")
        os.mkdir(directory, 0o700)
        self._stack.callback(remove_tree, directory)
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        # Through a descriptor: the path may be longer than an address has room for (unix(7)).
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{handle}/agent")
        finally:
            os.close(handle)
        listener.listen(8)
        self._stack.callback(_shut, listener)
        threading.Thread(target=self._accept, args=(listener, name), name="lent-agent", daemon=True).start()
        return os.path.join(directory, "agent")

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._forward, args=(connection, name), name="lent-agent", daemon=True
            ).start()

    def _forward(self, connection: socket.socket, name: str) -> None:
        """Bytes both ways until either side has enough."""
        with (
            connection,
            suppress(GrpcError, OSError),
            self._session.stream(_FORWARD, [("buildkit.ssh.id", name)]) as stream,
        ):
            back = threading.Thread(target=_answer, args=(stream, connection), name="lent-agent", daemon=True)
            back.start()
            while data := connection.recv(_PIECE):
                stream.write(Bytes(data))
            stream.end_sending()
            back.join()


def _answer(stream: Stream, connection: socket.socket) -> None:
    with suppress(GrpcError, OSError):
        for piece in stream.messages(Bytes):
            connection.sendall(piece.data)
    _shut(connection)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
