from __future__ import annotations

import subprocess
import sys

from registry_client.clients import Clients


def test_an_aborted_client_is_replaced() -> None:
    with Clients() as clients:
        first = clients.for_host("localhost:5000")
        first.abort()
        second = clients.for_host("localhost:5000")
        assert second is not first
        assert not second.aborted


def test_the_library_is_cheap_to_import_until_a_registry_is_talked_to() -> None:
    script = (
        "import sys, registry_client.clients, registry_client.credentials, registry_client.reference\n"
        "print([name for name in ('httpx', 'ssl', 'subprocess') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
