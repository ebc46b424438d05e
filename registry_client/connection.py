"""Requests to one endpoint: authentication, redirects, retries, TLS (FEATURES C-12, C-14, C-16, C-19, C-22).

Every answer comes back unread, so bodies of any size stream. `send` repeats what may be repeated: a request whose
connection broke, and an answer that says "later" (429, 5xx), with growing pauses or the pause the registry asks for.
What a transfer that broke in its middle should do is its caller's business. Authorization never follows a redirect
to another host. Importing this module imports httpx (100 ms): do it where it is needed.
"""

from __future__ import annotations

import email.utils
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from registry_client.auth import Authorizer
from registry_client.credentials import Credentials
from registry_client.endpoint import Endpoint, is_loopback
from registry_client.errors import (
    Invalid,
    RateLimited,
    RegistryError,
    Unreachable,
    error_from_response,
)

USER_AGENT = "pipe"
MANIFEST_LIMIT = 4 << 20  # what registries must accept at least, and what we accept at most
_ERROR_LIMIT = 64 << 10
_LATER = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_TOKEN_LIMIT = 1 << 20
T = TypeVar("T")

Body = Callable[[], bytes | Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we try. With `sleep` tests need not wait; without it a pause ends when the connection is aborted."""

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 10.0
    longest_retry_after: float = 120.0
    sleep: Callable[[float], None] | None = None

    def pause(self, attempt: int) -> float:
        """Seconds before attempt number `attempt` (from 1), with jitter so that clients do not march in step."""
        return float(
            min(self.first_pause * 2 ** (attempt - 1), self.longest_pause) * random.uniform(0.5, 1.0)
        )


@dataclass(frozen=True, slots=True)
class Request:
    """`url` is a path below the endpoint's `/v2/`, or absolute. `body` is called anew for every attempt."""

    method: str
    url: str
    what: str  # for messages: "pull shop/app:1 from localhost:5000"
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    trusted: bool = True  # False for URLs outside the registry: no credentials are sent


class Connection:
    """One endpoint. Safe to use from threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        *,
        timeout: float = 60.0,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.patience = patience or Patience()
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 20.0), pool=None)
        self._transport = transport
        self._notify = notify or (lambda message: None)
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, bool], httpx.Client] = {}
        self._scheme = endpoint.scheme
        self._warned: set[str] = set()
        self._aborted = threading.Event()
        self._reached = False
        self._answers: weakref.WeakSet[httpx.Response] = weakref.WeakSet()
        self._authorizer = Authorizer(endpoint, credentials, self._fetch)

    @property
    def host(self) -> str:
        return self.endpoint.credential_host

    def close(self) -> None:
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    def abort(self) -> None:
        """Break off what is under way, from another thread: transfers end with an error, pauses at once."""
        self._aborted.set()
        with self._lock:
            answers = list(self._answers)
        for response in answers:
            stream = response.extensions.get("network_stream")
            sock = stream.get_extra_info("socket") if stream is not None and not response.is_closed else None
            if sock is not None:
                with suppress(OSError):  # it ended by itself just now
                    sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads, which closing does not

    @property
    def aborted(self) -> bool:
        return self._aborted.is_set()

    def may_help(self, error: RegistryError) -> bool:
        """Whether doing it again could turn out better."""
        if error.final:
            return False  # it was already tried as often as we try
        cause = error.__cause__
        if isinstance(cause, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return False
        # A registry that was there a moment ago may be starting anew.
        nobody = not self._reached and isinstance(cause, httpx.ConnectError) and _is_nobody_there(cause)
        if nobody or (isinstance(cause, httpx.ConnectError) and _is_tls_fault(cause)):
            return False
        return isinstance(error, Unreachable | RateLimited) and (error.status == 0 or error.status in _LATER)

    def pause(self, seconds: float) -> None:
        """Wait before another attempt."""
        if self.patience.sleep is not None:
            self.patience.sleep(seconds)
        else:
            self._aborted.wait(seconds)

    @contextmanager
    def open(self, request: Request, ok: Container[int] = (200,)) -> Iterator[httpx.Response]:
        """Send, and close the answer with the block. An answer that is not `ok` is raised as the error it stands for."""
        response = self.send(request, ok)
        try:
            yield response
        finally:
            response.close()

    def call(
        self, request: Request, ok: Container[int] = (200,), limit: int = MANIFEST_LIMIT
    ) -> tuple[httpx.Response, bytes]:
        """Send and read the whole answer, which may have `limit` bytes."""

        return self._persistently(lambda: self.call_once(request, ok, limit))

    def call_once(
        self, request: Request, ok: Container[int] = (200,), limit: int = MANIFEST_LIMIT
    ) -> tuple[httpx.Response, bytes]:
        """As `call`, without repeating what failed."""
        with closing(self._accepted(request, ok)) as response:
            return response, read_limited(response, limit, request.what)

    def send(self, request: Request, ok: Container[int] = (200,)) -> httpx.Response:
        """Send; the caller closes the answer."""
        return self._persistently(lambda: self._accepted(request, ok))

    def _accepted(self, request: Request, ok: Container[int]) -> httpx.Response:
        response = self._once(request)
        if response.status_code not in ok:
            with closing(response):
                raise self._error(request, response)
        self._show_warnings(response)
        return response

    def _persistently(self, exchange: Callable[[], T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return exchange()
            except (Unreachable, RateLimited) as error:
                self._pause_or_raise(error, attempt)

    def _pause_or_raise(self, error: RegistryError, attempt: int) -> None:
        pause = self.patience.pause(attempt)
        too_long = False
        if error.retry_after is not None:
            too_long = error.retry_after > self.patience.longest_retry_after
            pause = error.retry_after
        if too_long or attempt >= self.patience.attempts or not self.may_help(error):
            error.final = True
            raise error
        self._notify(f"{error.message}; trying again in {pause:.1f} s")
        self.pause(pause)

    def _once(self, request: Request) -> httpx.Response:
        url = self.absolute(request.url)
        sent = dict(request.headers)
        if request.trusted and (header := self._authorizer.header(request.scopes)):
            sent["Authorization"] = header
        response = self._follow(request, url, sent)
        if response.status_code != 401 or not request.trusted or not self._own(str(response.url)):
            return response
        header = self._authorizer.challenged(response.headers.get_list("www-authenticate"), request.scopes)
        if header is None:
            return response
        response.close()
        return self._follow(request, url, {**sent, "Authorization": header})

    def _follow(self, request: Request, url: str, headers: dict[str, str]) -> httpx.Response:
        method, body = request.method, request.body
        for _ in range(_MOST_REDIRECTS):
            response = self._exchange(method, url, headers, body, request.what)
            target = response.headers.get("location", "")
            if response.status_code not in _REDIRECTS or not target:
                return response
            response.close()
            target = str(httpx.URL(url).join(target))
            if not target.startswith(("http://", "https://")):
                raise Invalid(f"cannot {request.what}: {self.host} redirects to {target!r}")
            if _origin(target) != _origin(url):
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            if response.status_code == 303:
                method, body = "GET", None
            url = target
        raise Invalid(f"cannot {request.what}: {self.host} redirects more than {_MOST_REDIRECTS} times")

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, what: str
    ) -> httpx.Response:
        if self.aborted:
            raise _final(Unreachable(f"cannot {what}: it was broken off"))
        client = self._client(url)
        message = client.build_request(
            method, url, headers=dict(headers), content=body() if body else None, timeout=self._timeout
        )
        try:
            response = client.send(message, stream=True)
            with self._lock:
                self._answers.add(response)
                self._reached = True
            return response
        except httpx.HTTPError as error:
            raise unreachable(what, url, error) from error

    def _client(self, url: str) -> httpx.Client:
        scheme, _, rest = url.partition("://")
        local = is_loopback(rest.partition("/")[0])
        with self._lock:
            if (scheme, local) not in self._clients:
                # Reading the machine's certificates takes 20 ms: plain http does without.
                verify: ssl.SSLContext | bool = False if scheme == "http" else tls_context(self.endpoint)
                self._clients[scheme, local] = httpx.Client(
                    verify=verify,
                    transport=self._transport,
                    trust_env=not local,  # no proxy leads to this machine
                    headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                )
            return self._clients[scheme, local]

    def _fetch(
        self,
        method: str,
        url: str,
        *,
        query: list[tuple[str, str]] | None = None,
        form: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request to a token server."""
        what = f"log in to {self.host} through {url}"
        sent = dict(headers or {})
        body: Body | None = None
        if query:
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(query)
        if form is not None:
            data = urllib.parse.urlencode(form).encode()
            body = lambda: data  # noqa: E731
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        request = Request(method, url, what, headers=sent, body=body)

        def exchange() -> tuple[httpx.Response, bytes]:
            with closing(self._follow(request, url, sent)) as response:
                answer = read_limited(response, _TOKEN_LIMIT, what)
            if response.status_code in _LATER:
                raise error_from_response(what, self.host, response.status_code, response.headers, answer)
            return response, answer

        response, answer = self._persistently(exchange)
        return response.status_code, response.headers, answer

    def absolute(self, url: str) -> str:
        """The full URL of a path below `/v2/`; absolute ones stay."""
        if url.startswith(("http://", "https://")):
            return url
        path = f"{self.endpoint.prefix}/{url}" if self.endpoint.prefix and url else url
        return f"{self.scheme()}://{self.endpoint.host}/v2/{path}"

    def scheme(self) -> str:
        """`http` or `https`; found out once where the endpoint leaves it open."""
        if not self._scheme:
            self._scheme = self._find_scheme()
        return self._scheme or ("https" if self.endpoint.insecure else "http")

    def _find_scheme(self) -> str:
        """Which scheme the host answers; "" when it does not answer."""
        # Insecure hosts may speak either; on loopback plain http is the rule and a TLS server tells itself.
        order = ("https", "http") if self.endpoint.insecure else ("http", "https")
        what = f"talk to {self.host}"
        for scheme in order:
            url = f"{scheme}://{self.endpoint.host}/v2/"
            try:
                with closing(self._exchange("GET", url, {}, None, what)) as response:
                    body = read_limited(response, _ERROR_LIMIT, what)
            except Unreachable as error:
                if isinstance(error.__cause__, httpx.ConnectError) and not _is_tls_fault(error.__cause__):
                    break  # nobody listens: the other scheme would not help
                continue
            if scheme == "http" and response.status_code == 400 and b"HTTPS" in body.upper():
                return "https"
            return scheme
        return ""

    def _own(self, url: str) -> bool:
        return httpx.URL(url).netloc == httpx.URL(self.absolute("")).netloc

    def _error(self, request: Request, response: httpx.Response) -> RegistryError:
        try:
            body = read_limited(response, _ERROR_LIMIT, request.what)
        except RegistryError:
            body = b""  # the status says enough
        error = error_from_response(request.what, self.host, response.status_code, response.headers, body)
        error.retry_after = _retry_after(response.headers.get("retry-after", ""))
        return error

    def _show_warnings(self, response: httpx.Response) -> None:
        for text in response.headers.get_list("warning"):
            match = re.fullmatch(r'299 - "((?:[^"\\]|\\.)*)"(?: "[^"]*")?', text.strip())
            if match is None or match[1] in self._warned:
                continue
            self._warned.add(match[1])
            self._notify(f"{self.host} says: {match[1]}")


def _final(error: Unreachable) -> Unreachable:
    error.final = True
    return error


class BrokenOff(Unreachable):
    """The answer began and did not come to its end."""


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
        raise BrokenOff(
            f"cannot {what}: the connection broke off: {error or type(error).__name__}"
        ) from error
    return b"".join(parts)


def unreachable(what: str, url: str, error: Exception) -> Unreachable:
    """A transport fault in our words."""
    host = httpx.URL(url).netloc.decode()
    reason = str(error) or type(error).__name__
    hint = ""
    if _is_tls_fault(error):
        hint = f"give the authority that signed {host}'s certificate, or name {host} as an insecure registry"
        if "WRONG_VERSION_NUMBER" in reason or "record layer" in reason.lower():
            hint = f"{host} seems to speak plain http; name it as an insecure registry"
    elif isinstance(error, httpx.ConnectError):
        hint = f"is {host} running and reachable?"
    return Unreachable(f"cannot {what}: no answer from {host}: {reason}", hint=hint)


def _is_tls_fault(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_nobody_there(error: httpx.ConnectError) -> bool:
    """Nothing listens on this machine, or the host's name does not exist: that will not change in seconds."""
    refused_here = is_loopback(error.request.url.netloc.decode()) and "refused" in str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return cause.errno != socket.EAI_AGAIN
        cause = cause.__cause__ or cause.__context__
    return refused_here


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


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _retry_after(text: str) -> float | None:
    if text.strip().isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(moment.timestamp() - time.time(), 0.0)
