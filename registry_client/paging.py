"""Lists that come in pages: the `Link` header (distribution-spec, listing tags; RFC 5988)."""

from __future__ import annotations

import re

import httpx

from registry_client.faults import join

_NEXT = re.compile(r'<([^>]*)>[^,]*?rel="?next"?')


def next_page(response: httpx.Response, what: str) -> str:
    """The absolute URL of the next page, "" on the last one. A page at another host is not followed."""
    for text in response.headers.get_list("link"):
        for match in _NEXT.finditer(text):
            target = join(response.url, match[1], what)
            if target.netloc == response.url.netloc:
                return str(target)
    return ""
