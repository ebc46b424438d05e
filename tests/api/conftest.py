from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon_here


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_here(tmp_path) as found:
        yield found
