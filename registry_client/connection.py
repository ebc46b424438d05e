"""Requests to one endpoint, with its logins and our patience (FEATURES C-12, C-14, C-16, C-19, C-22).

`call` and `send` repeat what may be repeated: a request whose connection broke, and an answer that says "later" (429,
5xx), with growing pauses or the pause the registry asks for. What a transfer that broke in its middle should do is its
caller's business.
"""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections.abc import Callable, Container, Mapping
from contextlib import closing
from typing import TypeVar

import httpx

from registry_client.auth import Authorizer
from registry_client.credentials import Credentials
from registry_client.endpoint import Endpoint
from registry_client.errors import RateLimited, RegistryError, Unreachable, error_from_response
from registry_client.exchange import Body, Exchange, Request, origin, read_limited
from registry_client.faults import is_doubtful, is_lasting, is_tls_fault
from registry_client.patience import LATER, Patience, parse_retry_after
from registry_client.values import replace

MANIFEST_LIMIT = 4 << 20  # what registries must accept at least, and what we accept at most
_QUICKLY = 0.2  # seconds before the only other try where nobody may be there
_ERROR_LIMIT = 64 << 10
_TOKEN_LIMIT = 1 << 20
T = TypeVar("T")


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
        self._exchange = Exchange(endpoint, timeout, transport)
        self._notify = notify or (lambda message: None)
        self._lock = threading.Lock()
        self._asking, self._asked = threading.Lock(), 0  # for the scheme
        self._scheme = endpoint.scheme
        self._warned: set[str] = set()
        self._authorizer = Authorizer(endpoint, credentials, self._fetch)

    @property
    def host(self) -> str:
        return self.endpoint.credential_host

    @property
    def aborted(self) -> bool:
        return self._exchange.aborted.is_set()

    def abort(self) -> None:
        """Break off what other threads are doing: transfers end with an error, pauses at once."""
        self._exchange.abort()

    def close(self) -> None:
        self._exchange.close()

    # ── requests ───────────────────────────────────────────────────────────────────────────────────────────────────

    def call(
        self, request: Request, ok: Container[int] = (200,), limit: int = MANIFEST_LIMIT
    ) -> tuple[httpx.Response, bytes]:
        """Send and read the whole answer, which may have `limit` bytes. One that is not `ok` is raised as its error."""
        return self._persistently(lambda: self.call_once(request, ok, limit))

    def call_once(
        self, request: Request, ok: Container[int] = (200,), limit: int = MANIFEST_LIMIT
    ) -> tuple[httpx.Response, bytes]:
        """As `call`, without repeating what failed."""
        with closing(self._accepted(request, ok)) as response:
            return response, read_limited(response, limit, request.what)

    def send(self, request: Request, ok: Container[int] = (200,)) -> httpx.Response:
        """Send; the answer is unread, and the caller closes it."""
        return self._persistently(lambda: self._accepted(request, ok))

    def _accepted(self, request: Request, ok: Container[int]) -> httpx.Response:
        response = self._authorized(replace(request, url=self.absolute(request.url)))
        if response.status_code not in ok:
            with closing(response):
                raise self._error(request, response)
        self._show_warnings(response)
        return response

    def _authorized(self, request: Request) -> httpx.Response:
        sent = dict(request.headers)
        if request.trusted and (header := self._authorizer.header(request.scopes)):
            sent["Authorization"] = header
        response = self._exchange.follow(request, sent)
        ours = origin(response.url) == origin(httpx.URL(self.absolute("")))
        if response.status_code != 401 or not request.trusted or not ours:
            return response
        header = self._authorizer.challenged(response.headers.get_list("www-authenticate"), request.scopes)
        if header is None:
            return response
        response.close()
        return self._exchange.follow(request, {**sent, "Authorization": header})

    def _error(self, request: Request, response: httpx.Response) -> RegistryError:
        try:
            body = read_limited(response, _ERROR_LIMIT, request.what)
        except RegistryError:
            body = b""  # the status says enough
        error = error_from_response(request.what, self.host, response.status_code, response.headers, body)
        error.retry_after = parse_retry_after(response.headers.get("retry-after", ""))
        return error

    def _show_warnings(self, response: httpx.Response) -> None:
        for text in response.headers.get_list("warning"):
            match = re.fullmatch(r'299 - "((?:[^"\\]|\\.)*)"(?: "[^"]*")?', text.strip())
            if match is not None and self._is_new(match[1]):
                self._notify(f"{self.host} says: {match[1]}")

    def _is_new(self, warning: str) -> bool:
        with self._lock:
            known = warning in self._warned
            self._warned.add(warning)
        return not known

    # ── patience ───────────────────────────────────────────────────────────────────────────────────────────────────

    def may_help(self, error: RegistryError) -> bool:
        """Whether doing it again could turn out better."""
        if error.final or is_lasting(error.__cause__, reached=self._exchange.reached):
            return False
        return isinstance(error, Unreachable | RateLimited) and (error.status == 0 or error.status in LATER)

    def pause(self, seconds: float) -> None:
        """Wait before another attempt."""
        if self.patience.sleep is not None:
            self.patience.sleep(seconds)
        else:
            self._exchange.aborted.wait(seconds)

    def _persistently(self, attempt_once: Callable[[], T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return attempt_once()
            except (Unreachable, RateLimited) as error:
                self._pause_or_raise(error, attempt)

    def _pause_or_raise(self, error: RegistryError, attempt: int) -> None:
        asked = error.retry_after
        too_long = asked is not None and asked > self.patience.longest_retry_after
        doubtful = is_doubtful(error.__cause__, reached=self._exchange.reached)
        attempts = min(2, self.patience.attempts) if doubtful else self.patience.attempts
        if too_long or attempt >= attempts or not self.may_help(error):
            error.final = True
            raise error
        usual = _QUICKLY if doubtful else self.patience.pause(attempt)
        pause = usual if asked is None else asked
        self._notify(f"{error.message}; trying again in {pause:.1f} s")
        self.pause(pause)

    # ── tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────

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
        sent, body = dict(headers or {}), _form_body(form)
        if query:
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(query)
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        request = Request(method, url, what, headers=sent, body=body)

        def ask() -> tuple[httpx.Response, bytes]:
            with closing(self._exchange.follow(request, sent)) as response:
                answer = read_limited(response, _TOKEN_LIMIT, what)
            if response.status_code in LATER:
                raise error_from_response(what, self.host, response.status_code, response.headers, answer)
            return response, answer

        response, answer = self._persistently(ask)
        return response.status_code, response.headers, answer

    # ── addresses ──────────────────────────────────────────────────────────────────────────────────────────────────

    def absolute(self, url: str) -> str:
        """The full URL of a path below `/v2/`; absolute ones stay."""
        if url.startswith(("http://", "https://")):
            return url
        path = f"{self.endpoint.prefix}/{url}" if self.endpoint.prefix and url else url
        return f"{self.scheme()}://{self.endpoint.host}/v2/{path}"

    def scheme(self) -> str:
        """`http` or `https`; found out once where the endpoint leaves it open."""
        asked = self._asked
        with self._asking:
            # Threads that begin together want the same answer, also when that is none.
            if not self._scheme and self._asked == asked:
                self._scheme = self._find_scheme()
                self._asked += 1
        return self._scheme or ("https" if self.endpoint.insecure else "http")

    def _find_scheme(self) -> str:
        """Which scheme the host answers; "" when it does not answer."""
        # Insecure hosts may speak either; on loopback plain http is the rule and a TLS server tells itself.
        order = ("https", "http") if self.endpoint.insecure else ("http", "https")
        what = f"talk to {self.host}"
        for scheme in order:
            request = Request("GET", f"{scheme}://{self.endpoint.host}/v2/", what)
            try:
                with closing(self._exchange.follow(request, {})) as response:
                    body = read_limited(response, _ERROR_LIMIT, what)
            except Unreachable as error:
                if isinstance(error.__cause__, httpx.ConnectError) and not is_tls_fault(error.__cause__):
                    break  # nobody listens: the other scheme would not help
                continue
            if scheme == "http" and response.status_code == 400 and b"HTTPS" in body.upper():
                return "https"
            return scheme
        return ""


def _form_body(form: list[tuple[str, str]] | None) -> Body | None:
    if form is None:
        return None
    data = urllib.parse.urlencode(form).encode()
    return lambda: data
