"""Who may do what at the embedded registry (FEATURES C-35).

Without a password file everybody may read, and only this machine may write. With one, readers and writers log in
(htpasswd, bcrypt), unless reading is left open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import threading
from collections.abc import Callable

from registry_client.values import frozen
from runtime.errors import InvalidInput
from runtime.http.messages import Request, Response
from runtime.registry.answers import API_VERSION, refusal

_READING = frozenset({"GET", "HEAD"})
_CHALLENGE = {**API_VERSION, "WWW-Authenticate": 'Basic realm="pipe registry", charset="UTF-8"'}


@frozen
class Access:
    """`passwords` is the path of an htpasswd file, "" for none."""

    passwords: str = ""
    anonymous_read: bool = False


def guarded(handler: Callable[[Request], Response], access: Access) -> Callable[[Request], Response]:
    """`handler` behind the rules of `access`."""
    passwords = Passwords.load(access.passwords) if access.passwords else None

    def answer(request: Request) -> Response:
        reading = request.method in _READING
        if passwords is None:
            if not reading and not (_is_local(request.peer) and _names_an_address(request)):
                raise refusal("DENIED", "only this machine may push: no passwords are configured")
        elif not (reading and access.anonymous_read) and not passwords.admit(
            request.headers.get("authorization")
        ):
            raise refusal("UNAUTHORIZED", "authentication required", headers=_CHALLENGE)
        return handler(request)

    return answer


def _is_local(peer: str) -> bool:
    return peer == "" or peer.startswith(("127.", "[::1]", "[::ffff:127."))


def _names_an_address(request: Request) -> bool:
    """Whether the request's Host is an address or localhost.

    A page in a browser on this machine could otherwise write under a name of its own that leads here (DNS rebinding).
    """
    name = request.headers.get("host").rpartition(":")[0] or request.headers.get("host")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Passwords:
    """An htpasswd file. A password that was right once is remembered as a keyed hash: bcrypt takes its time."""

    def __init__(self, hashes: dict[str, bytes]) -> None:
        self._hashes = hashes
        self._key = secrets.token_bytes(32)
        self._known: set[bytes] = set()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str) -> Passwords:
        """Read the file; only bcrypt entries are of use, as for every registry."""
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read the password file {path}: {error}") from error
        hashes: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            if not line or line.startswith("#"):
                continue
            user, _, encoded = line.partition(":")
            if not encoded.startswith(("$2a$", "$2b$", "$2y$")):
                raise InvalidInput(
                    f"{path}:{number}: the entry of {user!r} is not bcrypt", hint="make it with `htpasswd -B`"
                )
            hashes[user] = encoded.encode()
        return cls(hashes)

    def admit(self, authorization: str) -> bool:
        """Whether the Authorization header names a user with the right password."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            pair = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        mark = hmac.digest(self._key, pair, hashlib.sha256)
        with self._lock:
            if mark in self._known:
                return True
        if not self._check(pair):
            return False
        with self._lock:
            self._known.add(mark)
        return True

    def _check(self, pair: bytes) -> bool:
        import bcrypt

        user, _, password = pair.partition(b":")
        # The same work for unknown users, so that time does not tell who exists. bcrypt looks at 72 bytes.
        known = self._hashes.get(user.decode(errors="replace"))
        right = bool(bcrypt.checkpw(password[:72], known or _NOBODY))
        return right and known is not None


_NOBODY = b"$2b$12$CwTycUXWue0Thq9StjUM0uJ8.OtqkW/8nVvA5wEXXQXZYyGqY0mY6"
