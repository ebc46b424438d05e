"""Versions, headers and the table of routes.

A path may begin with the version a client speaks; without one the newest is meant. A route is added without it, by
whoever has something to serve: the rooms of this package, and the command line for what lies above.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from registry_client.values import replace
from runtime.daemon.errors import as_http, error_response
from runtime.errors import PipeError
from runtime.http.messages import HttpError, Request, Response
from runtime.http.router import Handler, Router

Version = tuple[int, int]
# The newest whose own client and daemon (28.5) we are compared with; the oldest that daemon takes.
NEWEST: Version = (1, 51)
OLDEST: Version = (1, 24)

Route = tuple[str, str, Handler]  # method, pattern, handler
_VERSIONED = re.compile(r"/v(\d{1,4})\.(\d{1,4})(?=/)")
_ASKED = re.compile(r"(?:https?://[^/]*)?" + _VERSIONED.pattern)  # a proxy's client sends the absolute form


def spelled(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def version_of(request: Request) -> Version:
    """The version the client asked for."""
    match = _ASKED.match(request.target)
    return (int(match[1]), int(match[2])) if match else NEWEST


class EngineApi:
    """A handler for `runtime.http`. `headers` are sent with every answer of a route."""

    def __init__(
        self, headers: Mapping[str, str], around: Callable[[Handler, Request], Response] | None = None
    ) -> None:
        """`around` calls the handler: for what has to be set up and taken down with each request."""
        self._headers = {"Api-Version": spelled(NEWEST), "Ostype": "linux", **headers}
        self._around = around or (lambda handler, request: handler(request))
        self._router = Router()
        self._added: set[tuple[str, str]] = set()

    def add(self, routes: Iterable[Route]) -> None:
        for method, pattern, handler in routes:
            self._router.add(method, pattern, handler)
            self._added.add((method, pattern))

    def serves(self, method: str, pattern: str) -> bool:
        """Whether such a route was added: some answers tell what else there is."""
        return (method, pattern) in self._added

    def __call__(self, request: Request) -> Response:
        path = _VERSIONED.sub("", request.path, count=1)
        found = self._router.find(replace(request, path=path))
        if found is None:
            return error_response(request, HttpError(404, "page not found"))
        try:
            _check(version_of(request))
            response = self._around(*found)
        except PipeError as error:
            response = error_response(request, as_http(error))
        except HttpError as error:
            response = error_response(request, error)
        return replace(response, headers={**self._headers, **response.headers})


def _check(version: Version) -> None:
    """The sentences are Docker's: clients look for them to speak another version."""
    if version > NEWEST:
        text = f"client version {spelled(version)} is too new. Maximum supported API version is {spelled(NEWEST)}"
        raise HttpError(400, text)
    if version < OLDEST:
        text = f"client version {spelled(version)} is too old. Minimum supported API version is {spelled(OLDEST)}"
        raise HttpError(400, f"{text}, please upgrade your client to a newer version")
