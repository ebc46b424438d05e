"""Which handler answers which path. A table of patterns, tried in the order they were added."""

from __future__ import annotations

import re
from collections.abc import Callable

from registry_client.values import frozen, replace
from runtime.http.messages import HttpError, Request, Response

Handler = Callable[[Request], Response]


@frozen
class Route:
    method: str
    pattern: re.Pattern[str]
    handler: Handler


class Router:
    """`add("GET", "/v2/{name:path}/blobs/{digest}", handler)`; `{x}` is one segment, `{x:path}` one or more.

    HEAD is answered by the GET handler where it has no route of its own: the server leaves the body out.
    """

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        self._routes.append(Route(method, compile_pattern(pattern), handler))

    def __call__(self, request: Request) -> Response:
        if (found := self.find(request)) is not None:
            handler, wanted = found
            return handler(wanted)
        if allowed := {route.method for route in self._routes if route.pattern.fullmatch(request.path)}:
            allow = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
            raise HttpError(405, f"{request.method} is not allowed here", headers={"Allow": allow})
        raise HttpError(404, f"no such page: {request.path}")

    def find(self, request: Request) -> tuple[Handler, Request] | None:
        """Who answers, and the request with its parameters."""
        fallback: tuple[Handler, Request] | None = None
        for route in self._routes:
            if route.method != request.method and (route.method, request.method) != ("GET", "HEAD"):
                continue
            match = route.pattern.fullmatch(request.path)
            if match is None:
                continue
            found = route.handler, replace(request, params=match.groupdict())
            if route.method == request.method:
                return found
            fallback = fallback or found
        return fallback


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a route's pattern."""
    parts = re.split(r"\{(\w+)(:path)?\}", pattern)
    text = re.escape(parts[0])
    for name, kind, literal in zip(parts[1::3], parts[2::3], parts[3::3]):
        text += f"(?P<{name}>{'.+' if kind else '[^/]+'})" + re.escape(literal)
    return re.compile(text)
