"""Agents for `RUN --mount=type=ssh` as a user names them: `--ssh NAME[=SOCKET | KEY[,KEY…]]` (FEATURES A-61).

Keys are read here and so is whether they can serve at all; who signs with them is `builder.operations.agents`.
"""

from __future__ import annotations

import base64
import binascii
import os
import socket
import stat
from collections.abc import Callable, Mapping

from registry_client.values import field, frozen
from runtime.errors import InvalidInput, NotFound, Unavailable

Agent = Callable[[str], str | None]  # from a name to the socket of the agent

_KEY_LIMIT = 100 << 10  # bytes; BuildKit's own
_MAGIC = b"openssh-key-v1\0"


@frozen
class AgentWanted:
    """The socket of an agent that runs, or the keys of one to be started: (path, text of the file)."""

    socket: str = ""
    keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)


def parse_ssh(text: str, env: Mapping[str, str]) -> tuple[str, AgentWanted]:
    """The name of an agent, and the agent; an error if it does not answer or a key cannot be used."""
    name, _, value = text.partition("=")
    name = name or "default"
    paths = [path for path in value.split(",") if path] or [env.get("SSH_AUTH_SOCK", "")]
    if not paths[0]:
        raise NotFound(
            f"--ssh {name}: no agent is running", hint="set SSH_AUTH_SOCK, or give a socket or key files"
        )
    sockets = [path for path in paths if _is_socket(name, path)]
    if sockets and len(paths) > 1:
        raise InvalidInput(f"--ssh {name}: {sockets[0]} is an agent, and an agent goes alone")
    if sockets:
        _probe(name, sockets[0])
        return name, AgentWanted(sockets[0])
    return name, AgentWanted(keys=tuple((path, _key(name, path)) for path in paths))


def _is_socket(name: str, path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise NotFound(f"--ssh {name}: {path}: {error.strerror}") from error


def _probe(name: str, path: str) -> None:
    try:
        connect(path).close()
    except OSError as error:
        raise Unavailable(
            f"--ssh {name}: the agent at {path} does not answer: {error.strerror or error}",
            hint="is it still running? `ssh-add -l` asks it",
        ) from error


def connect(path: str) -> socket.socket:
    """A connection to a socket however long its path is (unix(7) has room for 107 bytes)."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
    except BaseException:
        connection.close()
        raise
    return connection


def _key(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_KEY_LIMIT + 1)
    except OSError as error:
        raise NotFound(f"--ssh {name}: cannot read {path}: {error.strerror}") from error
    if len(data) > _KEY_LIMIT or b"PRIVATE KEY-----" not in data:
        is_public = data.startswith((b"ssh-", b"ecdsa-", b"sk-"))
        hint = "give the private half" if is_public else ""
        raise InvalidInput(f"--ssh {name}: {path} is no private key and no agent's socket", hint=hint)
    if _is_encrypted(data):
        raise InvalidInput(
            f"--ssh {name}: the key {path} is protected by a passphrase",
            hint=f"add it to an agent with ssh-add, and forward that: --ssh {name}",
        )
    return data


def _is_encrypted(data: bytes) -> bool:
    """Of PEM the header says it; OpenSSH's own form (PROTOCOL.key) begins with the name of the cipher."""
    if b"ENCRYPTED" in data:
        return True
    if b"BEGIN OPENSSH PRIVATE KEY" not in data:
        return False
    lines = [line for line in data.splitlines() if not line.startswith(b"-----")]
    try:
        body = base64.b64decode(b"".join(lines))
    except binascii.Error:
        return False  # ssh-add says what is wrong with it
    start = len(_MAGIC) + 4
    length = int.from_bytes(body[len(_MAGIC) : start])
    return body.startswith(_MAGIC) and body[start : start + length] != b"none"
