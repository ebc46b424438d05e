"""`POST /grpc` and `POST /session` of the Engine API: each connection becomes HTTP/2 and is handed on."""

from __future__ import annotations

import socket
from collections.abc import Callable

from builder.control.builds import Ground
from builder.control.control import Services
from builder.control.errors import in_grpc
from builder.control.older import SessionBuilds
from builder.control.sessions import Sessions
from runtime.grpc.encrypted import plain
from runtime.grpc.server import serve
from runtime.http.messages import HttpError, Request, Response

Route = tuple[str, str, Callable[[Request], Response]]
_UPGRADED = {"Connection": "Upgrade", "Upgrade": "h2c"}
_HEADER = "x-docker-expose-session-"


class BuildKit:
    """The routes of one daemon."""

    def __init__(self, ground: Ground) -> None:
        self._sessions = Sessions()
        self._methods = Services(ground, self._sessions).methods()
        self.older = SessionBuilds(ground, self._sessions)

    def routes(self) -> list[Route]:
        return [("POST", "/grpc", self._grpc), ("POST", "/session", self._session)]

    def close(self) -> None:
        """End the clients' sessions, and with them their builds."""
        self._sessions.close()

    def _grpc(self, request: Request) -> Response:
        _check_upgrade(request)

        def takeover(sock: socket.socket, data: bytes) -> None:
            with plain(sock) as line:
                serve(line, self._methods, data, in_grpc)

        return Response(101, _UPGRADED, takeover=takeover)

    def _session(self, request: Request) -> Response:
        _check_upgrade(request)
        headers = request.headers
        uuid = headers.get(f"{_HEADER}uuid")
        if not uuid:
            raise HttpError(400, "the session has no id")
        name, shared_key = headers.get(f"{_HEADER}name"), headers.get(f"{_HEADER}sharedkey")
        methods = headers.all(f"{_HEADER}grpc-method")

        def takeover(sock: socket.socket, data: bytes) -> None:
            with plain(sock) as line:
                self._sessions.serve(line, data, uuid, name, shared_key, methods)

        return Response(101, _UPGRADED, takeover=takeover)


def _check_upgrade(request: Request) -> None:
    if request.headers.get("upgrade").lower() != "h2c":
        raise HttpError(
            400, f"{request.path} is for connections that become h2c: there is no such upgrade asked for"
        )
