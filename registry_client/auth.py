"""How a registry asks for credentials, and the tokens it gets (FEATURES C-12, C-13).

A request goes out with what is known, and an answer of 401 carries a challenge on any request: the answer says
which scheme, realm and scopes. Tokens are cached per (realm, service, scopes) until shortly before they expire. A
token that grants less than was asked for is no error: the registry decides. No lock is held while a token is fetched.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Protocol

from registry_client.credentials import Credential, Credentials
from registry_client.endpoint import Endpoint, is_loopback
from registry_client.errors import Denied, Invalid, RegistryError, error_from_response
from registry_client.values import field, frozen

CLIENT_ID = "pipe"
_DEFAULT_LIFETIME = 60.0
_MARGIN = 5.0
_TOKEN_LIMIT = 1 << 20


@frozen
class Challenge:
    """One scheme of a WWW-Authenticate header, in lower case, with its parameters."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


_PAIR = re.compile(r'\s*,?\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]*))')
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|$|,)")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of the WWW-Authenticate headers (RFC 7235 2.1), in order; malformed rests are ignored."""
    found: list[Challenge] = []
    for text in headers:
        position = 0
        while match := _SCHEME.match(text, position):
            scheme, position = match[1].lower(), match.end()
            parameters: dict[str, str] = {}
            while pair := _PAIR.match(text, position):
                quoted = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
                parameters[pair[1].lower()] = quoted
                position = pair.end()
            found.append(Challenge(scheme, parameters))
    return tuple(found)


def repository_scope(repository: str, *actions: str) -> str:
    """`repository:shop/app:pull,push`."""
    return f"repository:{repository}:{','.join(actions)}"


def merge_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """One scope per resource with all its actions, sorted. The resource may itself hold a colon (`host:5000/app`)."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, _, wanted = scope.rpartition(":")
        if resource:
            actions.setdefault(resource, set()).update(action for action in wanted.split(",") if action)
    return tuple(f"{resource}:{','.join(sorted(names))}" for resource, names in sorted(actions.items()))


@frozen
class Token:
    value: str = field(repr=False)
    expires: float  # on the monotonic clock


class Fetch(Protocol):
    """One plain request to a token server: (status, headers, body)."""

    def __call__(
        self,
        method: str,
        url: str,
        *,
        query: list[tuple[str, str]] | None = None,
        form: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]: ...


class Authorizer:
    """Answers one endpoint's challenges. Safe to use from threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        fetch: Fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, str, tuple[str, ...]], Token] = {}
        self._credential: Credential | None = None
        self._looked_up = False

    def header(self, scopes: Iterable[str]) -> str | None:
        """The Authorization header to send at first; None until the registry has asked."""
        with self._lock:
            challenge = self._challenge
        if challenge is None:
            return None
        return self._answer(challenge, merge_scopes(scopes), fresh=False)

    def challenged(self, headers: Iterable[str], scopes: Iterable[str]) -> str | None:
        """The header that answers a 401; None when there is nothing (more) we could say."""
        offered = parse_challenges(headers)
        # Where both are offered a token is the better answer: it does not send the password to the registry.
        for scheme in ("bearer", "basic"):
            for challenge in offered:
                if challenge.scheme == scheme:
                    with self._lock:
                        self._challenge = challenge
                    return self._answer(challenge, _wanted(scopes, challenge), fresh=True)
        return None

    def _answer(self, challenge: Challenge, scopes: tuple[str, ...], *, fresh: bool) -> str | None:
        credential = self._login()
        if credential is not None and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        if challenge.scheme == "basic":
            return None if credential is None or not credential.username else _basic(credential)
        return f"Bearer {self._token(challenge, scopes, credential, fresh=fresh).value}"

    def _login(self) -> Credential | None:
        # A helper is a process: asked once per endpoint.
        if not self._looked_up:
            self._credential = self._credentials.get(self._endpoint.credential_host)
            self._looked_up = True
        return self._credential

    def _token(
        self, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None, *, fresh: bool
    ) -> Token:
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        key = (realm, service, scopes)
        with self._lock:
            known = self._tokens.get(key)
        if not fresh and known is not None and known.expires > self._clock():
            return known
        self._check_realm(realm, credential)
        token = self._fetch_token(realm, service, scopes, credential)
        with self._lock:
            self._tokens[key] = token
        return token

    def _check_realm(self, realm: str, credential: Credential | None) -> None:
        scheme, _, rest = realm.partition("://")
        host = rest.partition("/")[0]
        if scheme not in ("http", "https") or not host or "@" in host:
            raise Invalid(f"{self._endpoint.host} names no usable token server: {realm!r}")
        plain_is_fine = is_loopback(host) or self._endpoint.insecure or self._endpoint.scheme == "http"
        if scheme == "http" and credential is not None and not plain_is_fine:
            raise Denied(f"{self._endpoint.host} wants the password sent unencrypted to {host}")

    def _fetch_token(
        self, realm: str, service: str, scopes: tuple[str, ...], credential: Credential | None
    ) -> Token:
        if credential is not None and credential.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", credential.identity_token),
                ("client_id", CLIENT_ID),
                ("service", service),
                ("scope", " ".join(scopes)),
            ]
            status, headers, body = self._fetch("POST", realm, form=form)
            # Token servers without OAuth2 answer 404 or 405; they may know GET.
            if status not in (404, 405):
                return self._read_token(realm, status, headers, body)
        query = [("scope", scope) for scope in scopes]
        if service:
            query.insert(0, ("service", service))
        sent: dict[str, str] = {}
        if credential is not None and credential.username:
            query.append(("account", credential.username))
            sent["Authorization"] = _basic(credential)
        status, headers, body = self._fetch("GET", realm, query=query, headers=sent)
        return self._read_token(realm, status, headers, body)

    def _read_token(self, realm: str, status: int, headers: Mapping[str, str], body: bytes) -> Token:
        if status != 200:
            raise self._refused(realm, status, headers, body)
        try:
            record = json.loads(body[:_TOKEN_LIMIT])
            value = record.get("token") or record.get("access_token")
            lifetime = float(record.get("expires_in") or _DEFAULT_LIFETIME)
            issued = str(record.get("issued_at") or "")
        except (ValueError, TypeError, AttributeError) as error:
            raise Invalid(f"the token server {realm} gave no valid answer") from error
        if not isinstance(value, str) or not value:
            raise Invalid(f"the token server {realm} gave no token")
        left = max(lifetime - _age(issued), 0.0)
        return Token(value, self._clock() + left - min(_MARGIN, left / 2))

    def _refused(self, realm: str, status: int, headers: Mapping[str, str], body: bytes) -> RegistryError:
        error = error_from_response(
            f"log in to {self._endpoint.credential_host} through {realm}",
            self._endpoint.credential_host,
            status,
            headers,
            body,
        )
        if status in (400, 401, 403):
            host = self._endpoint.credential_host
            error.hint = f"the login for {host} is not accepted; log in again with `pipe login {host}`"
        return error


def _wanted(scopes: Iterable[str], challenge: Challenge) -> tuple[str, ...]:
    return merge_scopes([*scopes, *challenge.parameters.get("scope", "").split()])


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _age(issued: str) -> float:
    """Seconds since `issued_at`; 0 when absent, unreadable or in the future (clocks differ)."""
    if not issued:
        return 0.0
    try:
        # Go writes nanoseconds; fromisoformat reads up to microseconds.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", issued))
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        return 0.0
    return max(time.time() - moment.timestamp(), 0.0)
