"""A token server after docker's token authentication spec: JWTs for a real docker-registry, granted from a table.

It answers GET with Basic credentials (or anonymously) and POST with a refresh token. `requests` keeps what was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.certificates import self_signed

ISSUER = "tests issuer"
SERVICE = "tests registry"
REFRESH_TOKEN = "a-refresh-token"


class TokenServer:
    """Grants everything to `user`; nobody else gets more than `anonymous_actions`."""

    def __init__(self, directory: Path, user: str, password: str, anonymous_actions: tuple[str, ...]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.user, self.password, self.anonymous_actions = user, password, anonymous_actions
        self.requests: list[tuple[str, list[str], str]] = []  # (method, scopes, who)
        self.lifetime = 300
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.bundle = directory / "token.crt"
        self.bundle.write_bytes(self_signed(ISSUER, self._key))
        self.port = 0

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def token(self, who: str, scopes: list[str]) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": who,
            "aud": SERVICE,
            "exp": now + self.lifetime,
            "nbf": now - 10,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": [self._grant(who, scope) for scope in scopes],
        }
        header = {"typ": "JWT", "alg": "ES256", "kid": self._key_id()}
        signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _grant(self, who: str, scope: str) -> dict[str, object]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = actions.split(",")
        allowed = wanted if who else [action for action in wanted if action in self.anonymous_actions]
        return {"type": kind, "name": name, "actions": allowed}

    def _key_id(self) -> str:
        # The libtrust fingerprint: 240 bits of the public key's hash, base32, in twelve groups.
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
        return ":".join(text[i : i + 4] for i in range(0, 48, 4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def token_server(
    directory: Path, user: str, password: str, anonymous_actions: tuple[str, ...] = ()
) -> Iterator[TokenServer]:
    """A token server on a free loopback port for the length of the block."""
    tokens = TokenServer(directory, user, password, anonymous_actions)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            who = self._basic_user()
            if who is None:
                self._answer(401, {"details": "incorrect username or password"})
                return
            scopes = query.get("scope", [])
            tokens.requests.append(("GET", scopes, who))
            self._answer(200, {"token": tokens.token(who, scopes), "expires_in": tokens.lifetime})

        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [REFRESH_TOKEN]:
                self._answer(401, {"details": "unknown refresh token"})
                return
            scopes = form.get("scope", [""])[0].split()
            tokens.requests.append(("POST", scopes, tokens.user))
            self._answer(200, {"access_token": tokens.token(tokens.user, scopes), "expires_in": 300})

        def _basic_user(self) -> str | None:
            header = self.headers.get("Authorization", "")
            if not header:
                return ""
            given = base64.b64decode(header.removeprefix("Basic ")).decode()
            return tokens.user if given == f"{tokens.user}:{tokens.password}" else None

        def _answer(self, status: int, record: dict[str, object]) -> None:
            body = json.dumps(record).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tokens.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
