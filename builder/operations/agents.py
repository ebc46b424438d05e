"""ssh agents as build steps see them: a socket of the step's own, behind it the user's agent or one we started for keys.

What a step asks is passed on message by message (draft-miller-ssh-agent), and only what reads: listing keys, signing, binding
a session. A step cannot take keys away, add some, or lock the agent; it is told that the agent failed to.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from builder.ssh import connect
from runtime.errors import InvalidInput, Unsupported
from runtime.temporary import temporary_directory

_FAILURE = b"\x05"
_LIST, _SIGN, _EXTENSION = 11, 13, 27
_SESSION_BIND = b"session-bind@openssh.com"  # restricts what a key may be used for
_MESSAGE_LIMIT = 256 << 10  # OpenSSH's own
_PATH_LIMIT = 107  # bytes in sun_path, unix(7)
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
# The agent ends with the command it starts, and that when we close its input, or end in whatever way.
_HOLD = ("sh", "-c", "echo ready; exec cat >/dev/null")


@contextmanager
def forwarded(upstream: str, path: str, *, uid: int, gid: int, mode: int) -> Iterator[None]:
    """A socket at `path` for whoever may write to it, answered by the agent at `upstream`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(
                f"/proc/self/fd/{directory}/{os.path.basename(path)}"
            )  # its own path may be too long
        finally:
            os.close(directory)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        listener.listen(16)
        server = _Server(listener, upstream)
        server.start()
        try:
            yield
        finally:
            server.stop()
            os.unlink(path)


class _Server:
    """One thread that accepts, one for each connection."""

    def __init__(self, listener: socket.socket, upstream: str) -> None:
        self._listener, self._upstream = listener, upstream
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, name="ssh-agent", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        self._thread.join()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), name="ssh-agent", daemon=True)
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with ExitStack() as stack, suppress(OSError):
            stack.enter_context(self._held(client))
            agent = stack.enter_context(self._held(connect(self._upstream)))
            while (message := _receive(client)) is not None:
                answer = _FAILURE
                if _is_allowed(message):
                    _send(agent, message)
                    answer = _receive(agent) or _FAILURE
                _send(client, answer)

    @contextmanager
    def _held(self, connection: socket.socket) -> Iterator[socket.socket]:
        """Known to `stop` while it is open."""
        with connection:
            with self._lock:
                if self._stopped:
                    raise ConnectionAbortedError
                self._open.add(connection)
            try:
                yield connection
            finally:
                with self._lock:
                    self._open.discard(connection)


def _is_allowed(message: bytes) -> bool:
    kind = message[:1]
    if kind == bytes((_EXTENSION,)):
        return message[5 : 5 + int.from_bytes(message[1:5])] == _SESSION_BIND
    return kind in (bytes((_LIST,)), bytes((_SIGN,)))


def _receive(connection: socket.socket) -> bytes | None:
    """One message without its length; None at the end, or where what comes is none."""
    head = _exactly(connection, 4)
    length = int.from_bytes(head)
    if len(head) < 4 or not 0 < length <= _MESSAGE_LIMIT:
        return None
    body = _exactly(connection, length)
    return body if len(body) == length else None


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := connection.recv(size - len(found))):
        found += more
    return found


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(len(message).to_bytes(4) + message)


@contextmanager
def started(path: str, keys: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """An OpenSSH agent of our own that holds `keys`, and its socket: `path`, or another where that is too long."""
    with ExitStack() as stack:
        if len(os.fsencode(path)) > _PATH_LIMIT:
            directory = stack.enter_context(temporary_directory("pipe-ssh-"))
            path = os.path.join(directory, "agent")
        stack.enter_context(_agent(path))
        for name, key in keys:
            _add(path, name, key)
        yield path


@contextmanager
def _agent(path: str) -> Iterator[None]:
    command = ("ssh-agent", "-a", path, *_HOLD)
    try:
        agent = subprocess.Popen(
            command,
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Unsupported(
            "keys for --ssh need OpenSSH's ssh-agent, which is not here",
            hint="install openssh-client, or forward an agent that runs",
        ) from error
    with agent:
        assert agent.stdout is not None and agent.stderr is not None
        if agent.stdout.readline() != b"ready\n":
            said = agent.stderr.read().decode("utf-8", "replace").strip()
            raise Unsupported(f"ssh-agent does not start: {said}")
        yield


def _add(agent: str, name: str, key: bytes) -> None:
    """From standard input: how the file is protected is not ours to judge, and nobody can be asked for a passphrase."""
    environment = {**_ENVIRONMENT, "SSH_AUTH_SOCK": agent, "SSH_ASKPASS_REQUIRE": "never"}
    text = key if key.endswith(b"\n") else key + b"\n"
    try:
        done = subprocess.run(
            ("ssh-add", "-q", "-"), input=text, env=environment, capture_output=True, start_new_session=True
        )
    except FileNotFoundError as error:
        raise Unsupported(
            "keys for --ssh need OpenSSH's ssh-add, which is not here", hint="install openssh-client"
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidInput(f"--ssh: the key {name} cannot be used: {said[-1] if said else 'ssh-add failed'}")
