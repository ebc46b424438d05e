"""How the registry spells errors and lists (distribution-spec, error codes, pagination)."""

from __future__ import annotations

import urllib.parse
from typing import Any

from runtime.http.messages import HttpError, Request, Response, json_response

API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}

# The codes of distribution-spec and the status each is sent with.
_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 416,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
    "PAGINATION_NUMBER_INVALID": 400,
}
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 405: "UNSUPPORTED", 413: "SIZE_INVALID"}


def refusal(code: str, message: str, status: int = 0, headers: dict[str, str] | None = None) -> HttpError:
    """An error of the API, to be raised."""
    return HttpError(status or _STATUS[code], message, code=code, headers=headers)


def error_response(request: Request, error: HttpError) -> Response:
    """The errors envelope."""
    code = error.code or _CODES.get(error.status, "UNKNOWN")
    record = {"errors": [{"code": code, "message": str(error), "detail": None}]}
    return json_response(record, error.status, {**API_VERSION, **error.headers})


def page_response(
    request: Request, names: list[str], key: str, record: dict[str, Any], *, default: int = 0
) -> Response:
    """A sorted list by `n` and `last`, with a Link to the next page."""
    names = sorted(names)
    last = request.argument("last")
    if last:
        names = [name for name in names if name > last]
    text = request.argument("n", str(default) if default else "")
    if text and not text.isdigit():
        raise refusal("PAGINATION_NUMBER_INVALID", f"invalid number of results requested: {text!r}")
    headers = dict(API_VERSION)
    if text:
        count = int(text)
        page = names[:count]
        if page and len(names) > count:
            query = urllib.parse.urlencode({"n": count, "last": page[-1]})
            headers["Link"] = f'<{urllib.parse.quote(request.path)}?{query}>; rel="next"'
        names = page
    return json_response({**record, key: names}, headers=headers)
