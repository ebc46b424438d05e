"""What can go wrong between us and a registry.

    RegistryError
    ├── Unauthorized   401, or a token server that does not know us
    ├── Denied         403: known, but not allowed
    ├── NotFound       no such repository, manifest or blob
    ├── RateLimited    429; `retry_after` says when to come again
    ├── Unreachable    no connection, TLS failure, 5xx: trying again may help
    ├── Invalid        what came is not what was asked for: digest, size, protocol
    ├── Rejected       another 4xx: the registry does not want what we sent
    └── CredentialError  the docker config file or a credential helper cannot be used

`status` is the HTTP status or 0, `code` the registry's own word (`MANIFEST_UNKNOWN`), `hint` what to do. No secret
ever stands in a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


class RegistryError(Exception):
    """A message in lower case with the value in it, as all our errors have."""

    def __init__(self, message: str, *, status: int = 0, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.hint = hint
        self.retry_after: float | None = None  # seconds, where the registry said so
        self.final = False  # repeated as often as we repeat; nobody should once more


class Unauthorized(RegistryError):
    pass


class Denied(RegistryError):
    pass


class NotFound(RegistryError):
    pass


class RateLimited(RegistryError):
    pass


class Unreachable(RegistryError):
    pass


class Invalid(RegistryError):
    pass


class Rejected(RegistryError):
    pass


class CredentialError(RegistryError):
    pass


def error_from_response(
    what: str, host: str, status: int, headers: Mapping[str, str], body: bytes
) -> RegistryError:
    """The error an answer stands for; `what` names the attempt (`pull shop/app:1 from localhost:5000`)."""
    code, text = _first_error(body)
    said = text or code.lower().replace("_", " ") or f"status {status}"
    message = f"cannot {what}: {said}"
    if status == 401:
        return Unauthorized(
            message, status=status, code=code, hint=f"log in with `pipe login {host}`, or check the name"
        )
    if status == 403:
        return Denied(message, status=status, code=code, hint=f"this login may not do that at {host}")
    if status == 404:
        return NotFound(message, status=status, code=code)
    if status == 429:
        return RateLimited(message, status=status, code=code, hint=_rate_hint(host, headers))
    if status >= 500 or status == 408:
        return Unreachable(message, status=status, code=code)
    return Rejected(message, status=status, code=code)


def _first_error(body: bytes) -> tuple[str, str]:
    try:
        record = json.loads(body)
        first = record["errors"][0]
        return str(first.get("code") or ""), _one_line(str(first.get("message") or ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", ""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _rate_hint(host: str, headers: Mapping[str, str]) -> str:
    # Docker Hub tells "100;w=21600": so many in a window of seconds.
    limit, _, window = headers.get("ratelimit-limit", "").partition(";w=")
    allowed = f" ({limit} in {int(window) // 3600} h)" if limit and window.isdigit() else ""
    return f"{host} limits how often it is asked{allowed}; wait, or log in with `pipe login {host}`"
