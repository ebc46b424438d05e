"""One request, one answer: TLS, redirects, breaking off. Nothing is repeated and nobody is asked for a password here.

Answers come back unread, so bodies of any size stream. Authorization never follows a redirect to another host, scheme
or port. Importing this module imports httpx (100 ms): do it where it is needed.
"""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import httpx

from registry_client.endpoint import Endpoint, is_loopback
from registry_client.errors import Invalid
from registry_client.faults import aborted, broken_off, join, unreachable
from registry_client.values import field, frozen

USER_AGENT = "pipe"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10

Body = Callable[[], bytes | Iterator[bytes]]


@frozen
class Request:
    """`url` is a path below the endpoint's `/v2/`, or absolute. `body` is called anew for every attempt."""

    method: str
    url: str
    what: str  # for messages: "pull shop/app:1 from localhost:5000"
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    trusted: bool = True  # False for URLs outside the registry: no credentials are sent


class Exchange:
    """The HTTP of one endpoint. Safe to use from threads."""

    def __init__(self, endpoint: Endpoint, timeout: float, transport: httpx.BaseTransport | None) -> None:
        self._endpoint = endpoint
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 20.0), pool=None)
        self._transport = transport
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, bool], httpx.Client] = {}
        self._answers: weakref.WeakSet[httpx.Response] = weakref.WeakSet()
        self.aborted = threading.Event()
        self.reached = False  # somebody answered at least once

    def close(self) -> None:
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    def abort(self) -> None:
        """Break off what is under way, from another thread, and refuse anything further."""
        self.aborted.set()
        with self._lock:
            answers = list(self._answers)
        for response in answers:
            stream = response.extensions.get("network_stream")
            sock = stream.get_extra_info("socket") if stream is not None and not response.is_closed else None
            if sock is not None:
                with suppress(OSError):  # it ended by itself just now
                    sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads, which closing does not

    def follow(self, request: Request, headers: Mapping[str, str]) -> httpx.Response:
        """The answer to `request` (whose URL is absolute) at the end of all redirects; the caller closes it."""
        method, body, url = request.method, request.body, httpx.URL(request.url)
        for _ in range(_MOST_REDIRECTS):
            response = self._send(method, str(url), headers, body, request.what)
            location = response.headers.get("location", "")
            if response.status_code not in _REDIRECTS or not location:
                return response
            response.close()
            target = join(url, location, request.what)
            if origin(target) != origin(url):
                headers = {name: text for name, text in headers.items() if name.lower() != "authorization"}
            if response.status_code == 303:
                method, body = "GET", None
            url = target
        raise Invalid(f"cannot {request.what}: {url.host} redirects more than {_MOST_REDIRECTS} times")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, what: str
    ) -> httpx.Response:
        if self.aborted.is_set():
            raise aborted(what)
        client = self._client(url)
        content = body() if body else None
        try:
            message = client.build_request(
                method, url, headers=dict(headers), content=content, timeout=self._timeout
            )
            response = client.send(message, stream=True)
        except httpx.HTTPError as error:
            raise unreachable(what, url, error) from error
        with self._lock:
            self._answers.add(response)
            self.reached = True
        if self.aborted.is_set():  # while we waited for the answer: nobody else will close it
            response.close()
            raise aborted(what)
        return response

    def _client(self, url: str) -> httpx.Client:
        scheme, _, rest = url.partition("://")
        local = is_loopback(rest.partition("/")[0])
        with self._lock:
            if (scheme, local) not in self._clients:
                # Reading the machine's certificates takes 20 ms: plain http does without.
                verify: ssl.SSLContext | bool = False if scheme == "http" else tls_context(self._endpoint)
                self._clients[scheme, local] = httpx.Client(
                    verify=verify,
                    transport=self._transport,
                    trust_env=not local,  # no proxy leads to this machine
                    headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                )
            return self._clients[scheme, local]


def read_limited(response: httpx.Response, limit: int, what: str) -> bytes:
    """The whole body; Invalid when it has more than `limit` bytes."""
    parts, size = [], 0
    try:
        for part in response.iter_raw():
            size += len(part)
            if size > limit:
                raise Invalid(f"cannot {what}: the answer has more than {limit} bytes")
            parts.append(part)
    except httpx.HTTPError as error:
        raise broken_off(what, error) from error
    return b"".join(parts)


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """What makes two URLs the same place (RFC 6454)."""
    return url.scheme, url.host, url.port


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """The system's authorities and the endpoint's own."""
    tls = endpoint.tls
    try:
        context = ssl.create_default_context()
        for path in tls.authorities:
            context.load_verify_locations(cafile=path)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(filter(None, (*tls.authorities, tls.certificate, tls.key)))
        raise Invalid(f"cannot use the TLS files of {endpoint.host} ({named}): {error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
