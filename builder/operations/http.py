"""ADD of a URL: one file, fetched again only when the server says it changed (A-76)."""

from __future__ import annotations

import email.utils
import hashlib
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from builder.cache import Cache
from builder.graph import HttpSource
from builder.keys import Shape
from builder.lower.remotes import without_credentials
from builder.operations import fetched
from builder.operations.step import Setting
from builder.state import FilesState
from runtime.errors import InvalidInput, Unavailable
from runtime.store.store import Store

TIMEOUT = 60.0
_CHUNK = 1 << 20


def fetch_http(
    store: Store, setting: Setting, operation: HttpSource, secrets: Mapping[str, bytes]
) -> FilesState:
    """The file as a tree of one entry."""
    name = operation.url
    shape = Shape.of(
        "http.v1", {"url": operation.url, "filename": operation.filename, "mode": operation.mode}
    )
    earlier = Cache(store).latest(shape)
    if earlier is not None and operation.checksum and earlier[1].get("sha256") == operation.checksum:
        return fetched.as_files(store, earlier[0], name=name, time=_time_of(earlier[1]))
    headers = _authorization(operation.url, secrets)
    if earlier is not None:
        headers |= _conditions(earlier[1])
    with _response(operation.url, headers) as response:
        if response.status_code == 304 and earlier is not None:
            _check(operation, str(earlier[1].get("sha256")))
            return fetched.as_files(store, earlier[0], name=name, time=_time_of(earlier[1]))
        if response.status_code >= 400:
            raise Unavailable(
                f"{without_credentials(name)} answered {response.status_code} {response.reason_phrase}"
            )
        notes: dict[str, str] = {
            "etag": response.headers.get("etag", ""),
            "last-modified": response.headers.get("last-modified", ""),
        }

        def fill(directory: str) -> None:
            place = os.path.join(directory, operation.filename)
            notes["sha256"] = _save(response, place, operation, setting)

        version = notes["etag"] or notes["last-modified"] or os.urandom(8).hex()
        record = fetched.keep(store, shape, version, fill, notes)
        return fetched.as_files(store, record, name=name, time=_time_of(notes))


def _time_of(fields: Mapping[str, Any]) -> int | None:
    time_ns = _modified_ns(str(fields.get("last-modified") or ""))
    return None if time_ns is None else time_ns // 10**9


def _response(url: str, headers: dict[str, str]) -> Any:
    from contextlib import contextmanager

    import httpx

    @contextmanager
    def opened() -> Any:
        try:
            with (
                httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                yield response
        except httpx.HTTPError as error:
            raise Unavailable(f"cannot fetch {without_credentials(url)}: {error}") from error
        except httpx.InvalidURL as error:
            raise InvalidInput(f"invalid URL {without_credentials(url)}: {error}") from error

    return opened()


def _save(response: Any, place: str, operation: HttpSource, setting: Setting) -> str:
    hasher = hashlib.sha256()
    with open(place, "xb") as file:
        for chunk in response.iter_bytes(_CHUNK):
            setting.cancel.check()
            hasher.update(chunk)
            file.write(chunk)
    digest = "sha256:" + hasher.hexdigest()
    _check(operation, digest)
    os.chmod(place, operation.mode)
    # Without a date it is 1970, as in BuildKit: the time of the download would give every machine another layer.
    time_ns = _modified_ns(response.headers.get("last-modified", "")) or 0
    os.utime(place, ns=(time_ns, time_ns))
    return digest


def _modified_ns(text: str) -> int | None:
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) * 10**9
    except ValueError:
        return None  # absent, or no date


def _check(operation: HttpSource, digest: str) -> None:
    if operation.checksum and operation.checksum != digest:
        raise InvalidInput(
            f"{without_credentials(operation.url)} has digest {digest}, not {operation.checksum}"
        )


def _conditions(fields: Mapping[str, Any]) -> dict[str, str]:
    if fields.get("etag"):
        return {"If-None-Match": str(fields["etag"])}
    return {"If-Modified-Since": str(fields["last-modified"])} if fields.get("last-modified") else {}


def _authorization(url: str, secrets: Mapping[str, bytes]) -> dict[str, str]:
    """As BuildKit: the secret HTTP_AUTH_HEADER_<host> is the header's value, HTTP_AUTH_TOKEN_<host> a bearer token."""
    host = urlsplit(url).hostname or ""
    if header := secrets.get(f"HTTP_AUTH_HEADER_{host}"):
        return {"Authorization": header.decode().strip()}
    if token := secrets.get(f"HTTP_AUTH_TOKEN_{host}"):
        return {"Authorization": f"Bearer {token.decode().strip()}"}
    return {}
