"""The logins a client sends along: `X-Registry-Auth` for one registry, `X-Registry-Config` for several (FEATURES E-R10).

They are used for this one request, kept nowhere, and sent only to the registry they are for. The daemon's own logins
are never used for a client.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from registry_client.credentials import Credentials, GivenLogins
from runtime.http.messages import Request


def sent_logins(request: Request) -> Credentials:
    """`X-Registry-Config`: a map from registry to login."""
    return GivenLogins(_header(request, "X-Registry-Config"))


def sent_login(request: Request, host: str) -> Credentials:
    """`X-Registry-Auth`: the login for the registry this request is about."""
    record = _header(request, "X-Registry-Auth")
    return GivenLogins({host: record} if record else {})


def _header(request: Request, name: str) -> dict[str, Any]:
    text = request.headers.get(name)
    try:
        # Both alphabets are seen, with and without padding. What cannot be read is no login, as docker has it.
        data = base64.b64decode(text.replace("-", "+").replace("_", "/").rstrip("=") + "===", validate=False)
        record = json.loads(data or b"{}")
    except (binascii.Error, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
