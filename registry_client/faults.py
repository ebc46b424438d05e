"""Transport faults in our words, and which of them can pass. The one place that knows how httpx reports what."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import httpx

from registry_client.endpoint import is_loopback
from registry_client.errors import Invalid, Unreachable

_NO_WAY = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)


class BrokenOff(Unreachable):
    """The answer began and did not come to its end."""


def unreachable(what: str, url: str, error: Exception) -> Unreachable:
    """No answer came at all."""
    host = httpx.URL(url).netloc.decode()
    reason = str(error) or type(error).__name__
    hint = ""
    if is_tls_fault(error):
        hint = f"give the authority that signed {host}'s certificate, or name {host} as an insecure registry"
        if "WRONG_VERSION_NUMBER" in reason or "record layer" in reason.lower():
            hint = f"{host} seems to speak plain http; name it as an insecure registry"
    elif isinstance(error, httpx.ConnectError):
        hint = f"is {host} running and reachable?"
    return Unreachable(f"cannot {what}: no answer from {host}: {reason}", hint=hint)


def broken_off(what: str, error: Exception) -> BrokenOff:
    """The answer ended before its end."""
    return BrokenOff(f"cannot {what}: the connection broke off: {error or type(error).__name__}")


def aborted(what: str) -> Unreachable:
    """We were told to stop; nothing is tried again."""
    error = Unreachable(f"cannot {what}: it was broken off")
    error.final = True
    return error


def is_lasting(cause: BaseException | None, *, reached: bool) -> bool:
    """Whether the fault will not pass in seconds. `reached`: the host answered before, so it may be starting anew."""
    if not isinstance(cause, httpx.ConnectError):
        return isinstance(cause, httpx.UnsupportedProtocol)
    return is_tls_fault(cause) or (not reached and _is_nobody_there(cause))


def is_doubtful(cause: BaseException | None, *, reached: bool) -> bool:
    """Whether nobody may be there at all: worth one more try, not five. Once a host answered its absence will pass."""
    if reached:
        return False
    if isinstance(cause, httpx.ConnectTimeout):
        return True
    return isinstance(cause, httpx.ConnectError) and any(
        isinstance(each, socket.gaierror) or getattr(each, "errno", None) in _NO_WAY
        for each in _causes(cause)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_tls_fault(error: BaseException | None) -> bool:
    return any(isinstance(each, ssl.SSLError) for each in _causes(error))


def _is_nobody_there(error: httpx.ConnectError) -> bool:
    """Nothing listens on this machine, or the host's name does not exist."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return cause.errno != socket.EAI_AGAIN
    return is_loopback(error.request.url.netloc.decode()) and "refused" in str(error)


def join(base: httpx.URL, target: str, what: str) -> httpx.URL:
    """Where a Location or Link leads; what comes from outside need not be a URL."""
    try:
        url = base.join(target)
    except (httpx.InvalidURL, ValueError) as error:
        raise Invalid(f"cannot {what}: {base.host} sends us to {target!r}, which is no URL") from error
    if url.scheme not in ("http", "https"):
        raise Invalid(f"cannot {what}: {base.host} sends us to {target!r}")
    return url
