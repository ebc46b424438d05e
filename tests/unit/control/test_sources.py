"""What a client may name as a context."""

from __future__ import annotations

import pytest

from builder.context import check_sent
from runtime.errors import InvalidInput


@pytest.mark.parametrize("text", ["https://host/a.git#v1:sub", "git@host:a", "http://host/a.tar"])
def test_urls_and_git_addresses_are_fetched(text: str) -> None:
    assert check_sent(text) == text


@pytest.mark.parametrize(
    "text", ["/etc", "..", "etc", "file:///etc/passwd", "local:x", "oci-layout:///x", ""]
)
def test_a_path_of_this_host_is_no_context_for_a_client(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no URL"):
        check_sent(text)
